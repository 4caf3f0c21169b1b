"""Runs with ``--with kubernetes`` on a real cluster: behaviour and leftovers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kind.conftest import Namespace
from tests.kind.terminal import Terminal, start
from tests.support import write_flow

EXAMPLES = Path(__file__).parents[2] / "examples"
OTHER_SYSTEMS = Path(__file__).parents[1] / "other_systems.py"
KUBERNETES = ("--with", "kubernetes")
WINDOWS_FLOW = """
    class F(FlowSpec):
        @resources(cpu=0.1, memory=200)
        @step
        def start(self):
            self.x = 42
            self.next(self.end)
        @resources(cpu=0.1, memory=200)
        @step
        def end(self):
            print(self.x, "from start")
"""


@pytest.fixture(scope="module")
def shapes(namespace: Namespace) -> Terminal:
    """A run of the flow with every shape."""
    done = namespace.run("shapes.py", *KUBERNETES, "--trace")
    assert done.code == 0, done.text
    return done


def jobs_of(namespace: Namespace, run: str) -> dict[str, dict[str, Any]]:
    """The Jobs of a run by task."""
    found = namespace.objects("jobs")
    annotations = [(job["metadata"]["annotations"], job) for job in found]
    return {
        f"{a['k8sflow.dev/step']}/{a['k8sflow.dev/task']}": job
        for a, job in annotations if a["k8sflow.dev/run"] == run.partition("/")[2]
    }  # fmt: skip


def test_branches_run_as_separate_jobs_at_the_same_time(namespace: Namespace, shapes: Terminal) -> None:
    """Each has a Job before the other one has ended; how soon their pods start is the cluster's part."""
    jobs = jobs_of(namespace, shapes.run)
    both = [jobs["left/0"], jobs["right/0"]]
    assert len({job["metadata"]["uid"] for job in both}) == 2
    created = [_time(job["metadata"]["creationTimestamp"]) for job in both]
    ended = [_time(job["status"]["completionTime"]) for job in both]
    assert max(created) < min(ended)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_the_timeline_of_a_run_shows_where_its_time_went(namespace: Namespace, shapes: Terminal) -> None:
    """Each task has all phases, by clocks that agree on this one machine; those of the chain add up to the run."""
    done = namespace.command("shapes.py", "timeline", shapes.run.partition("/")[2], "--json").wait(60)
    found = json.loads(done.text)
    phases = {"queued", "scheduling", "container", "python", "fetching", "loading", "user code", "storing", "reporting"}
    assert all(set(each["phases"]) == phases for each in found["executions"])
    assert [clock["ahead_seconds"] for clock in found["clocks"].values()] == [0.0]
    times = [datetime.fromisoformat(found[key].replace("Z", "+00:00")) for key in ("start", "end")]
    assert abs(sum(found["seconds"].values()) - (times[1] - times[0]).total_seconds()) < 0.01
    assert (found["chain"][0], found["chain"][-1]) == ("start/0", "end/0")


def test_resources_are_the_requests_of_the_job_and_the_limits_of_its_cgroup(
    namespace: Namespace, shapes: Terminal, client: Callable[[str], Any]
) -> None:
    """CPU is requested, memory is requested and limited, in the Job and in the kernel."""
    container = jobs_of(namespace, shapes.run)["start/0"]["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"requests": {"cpu": "300m", "memory": "200M"}, "limits": {"memory": "200M"}}
    data = client(shapes.run)["start"].task.data
    assert abs(int(data.memory_limit) - 200_000_000) < 4096
    # cgroup v1: 1024 shares a core; v2: weight 1 to 10,000 from 2 to 262,144 shares
    assert int(data.cpu_weight) in {int(0.3 * 1024), 1 + (int(0.3 * 1024) - 2) * 9999 // 262142, 35, 46}


def test_a_task_has_no_token_and_is_not_root(shapes: Terminal, client: Callable[[str], Any]) -> None:
    """The namespace enforces Pod Security "restricted", and the pod has no access to the API."""
    data = client(shapes.run)["start"].task.data
    assert data.user == 65532
    assert data.secrets is False


def test_parallel_map_uses_the_cores_that_the_pod_requested(shapes: Terminal, client: Callable[[str], Any]) -> None:
    """There are two and three processes on a node of another size, and as many threads in native libraries."""
    assert client(shapes.run)["meet"].task.data.sized == {"2": ("2", 2), "3": ("3", 3)}


def test_a_foreach_of_twenty_ends_in_one_correct_join(shapes: Terminal, client: Callable[[str], Any]) -> None:
    """Each branch has its own pod, and the results are in the order of the items."""
    data = client(shapes.run)["end"].task.data
    assert data.squares == [n**2 for n in range(20)]
    assert data.pods == 20
    assert "[end/0] sum of squares 2470" in shapes.text


def test_every_object_of_a_run_has_its_owner(namespace: Namespace, shapes: Terminal) -> None:
    """Deleting the owner removes Jobs and pods."""
    owners = {job["metadata"]["ownerReferences"][0]["name"] for job in jobs_of(namespace, shapes.run).values()}
    assert len(owners) == 1
    assert namespace.objects("configmaps", "k8sflow.dev/flow=Shapes")[0]["metadata"]["name"] in owners


@pytest.mark.parametrize(
    ("example", "arguments", "said"),
    [
        ("bigsum.py", ("--n", "2000"), r"The sum is [\d,.]+; n²/2 is 2,000,000\.0"),
        ("branches.py", (), r"mean 999,500\.0, median 500\.0 of 1001 numbers"),
        ("foreach.py", (), r"best of 5: C=[\d.]+ with accuracy 0\.99"),
    ],
)
def test_the_examples_run_on_the_cluster(
    namespace: Namespace, example: str, arguments: tuple[str, ...], said: str
) -> None:
    """Each pod reads the artifacts of the one before."""
    done = namespace.run(EXAMPLES / example, *arguments, *KUBERNETES)
    assert done.code == 0, done.text
    done.seen(rf"\[end/0\] {said}")


def test_a_run_is_started_from_windows(namespace: Namespace, tmp_path: Path) -> None:
    """Imitated by taking away what its Python lacks: no fork, no fcntl, and hardly any signals."""
    file = write_flow(tmp_path, WINDOWS_FLOW)
    words = [str(OTHER_SYSTEMS), "win32", str(file), "run", *KUBERNETES]
    done = start(words, {**namespace.environment, "USERNAME": "ada"}).wait(120)
    assert done.code == 0, done.text
    done.seen(r"\[end/0\] 42 from start")


def test_a_users_image_only_needs_python(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """An init container copies the runtime; options of a step reach its pod; other steps run here."""
    image = namespace.cluster.plain_image
    done = namespace.run("pods.py", K8SFLOW_KUBERNETES_IMAGE=image)
    assert done.code == 0, done.text
    data = client(done.run)["end"].task.data
    assert data.colour == "blue"
    assert data.here is None
    pod = next(p for p in namespace.objects("pods", "team=test") if p["metadata"]["name"] == data.pod)
    assert pod["spec"]["containers"][0]["image"] == image
    assert pod["spec"]["initContainers"][0]["image"] == namespace.cluster.image
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"memory": "200Mi"}


def test_output_is_shown_while_it_is_written(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """Both streams are shown line by line, with a last line without newline; all of it is stored."""
    done = namespace.run("trouble.py", "--what", "slow_output", *KUBERNETES)
    assert done.code == 0, done.text
    came = [done.seen(rf"\[start/0\] line {number} ")[0] for number in range(4)]
    written = [float(done.seen(rf"line {number} ")[1].rpartition(" ")[2]) for number in range(4)]
    assert came[0] < written[3]
    done.seen(r"\[start/0\] no newline at the end$")
    task = client(done.run)["start"].task
    assert task.stderr == "on stderr\n"
    assert task.stdout.endswith("no newline at the end")


def test_ctrl_c_leaves_no_job_and_no_pod(namespace: Namespace) -> None:
    """Running tasks are stopped and deleted before the command returns."""
    running = namespace.start("trouble.py", "--what", "sleep", *KUBERNETES)
    running.seen(r"\[start/0\] sleeping")
    running.interrupt()
    running.wait(60)
    assert running.code == 130, running.text
    assert "was cancelled" in running.text
    selector = f"k8sflow.dev/run={running.run.partition('/')[2]}"
    for kind in ("jobs", "pods", "configmaps"):
        assert namespace.objects(kind, selector) == []


def test_a_deleted_pod_runs_again_at_no_cost(namespace: Namespace) -> None:
    """Deleting the pod is an infrastructure failure, reported and retried."""
    running = namespace.start("trouble.py", "--what", "sleep_once", *KUBERNETES)
    running.seen(r"\[start/0\] sleeping")
    (pod,) = [p for p in namespace.objects("pods", "k8sflow.dev/flow=Trouble")
              if p["status"]["phase"] == "Running"]  # fmt: skip
    namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=1")
    running.wait(60)
    assert running.code == 0, running.text
    running.seen(r"run again.*costs no retry")
    running.seen(r"\[start/0\] not again$")
