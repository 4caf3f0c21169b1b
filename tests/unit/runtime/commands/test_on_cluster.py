"""``kubernetes list``, ``kill``, ``logs`` and ``describe``: the API server is a scripted one, and so is every pod."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.cli import kubernetes as cli
from k8sflow.config import Settings
from k8sflow.errors import NotFoundError, RunError
from k8sflow.executors.kubernetes.submission import job_name
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import labels
from k8sflow.kubernetes.job import TaskJob, job_manifest
from k8sflow.kubernetes.live import flow_selector
from k8sflow.kubernetes.names import owner_name
from k8sflow.runtime.commands.on_cluster import OnCluster
from k8sflow.runtime.commands.remote_runs import kill, runs_to_kill, selected
from k8sflow.runtime.lookup import Runs
from k8sflow.runtime.progress.console import Tone
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.lease import ObjectLease
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.framing import encode_start
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.user import current_user
from tests.support import load_flow, write_flow
from tests.unit.kubernetes.fake_api import FakeApi, fake_api

FLOW = """
class F(FlowSpec):
    @step
    def start(self): self.next(self.end)
    @step
    def end(self): pass
"""
OPTIONS = merge(PodOptions(image="r/i:1", cpu="100m", memory="200M"), DEFAULT_OPTIONS)


class Lab:
    """A flow whose runs are in a bucket and in a scripted cluster."""

    def __init__(self, server: FakeApi, folder: Path) -> None:
        self.server = server
        self.flow = load_flow(write_flow(folder, FLOW))
        self.graph = compile_flow(self.flow).graph
        self.store: ObjectStore = MemoryStore()
        self.runs = Runs("F", [self.store])

    @property
    def cluster(self) -> OnCluster:
        return OnCluster(Settings(kubernetes_namespace="lab"), "lab", Runs("F", [self.store]))

    def run(self, name: str, user: str = "", **more: Any) -> RunStore:
        """A run with a record."""
        run = RunStore(self.store, "F", name)
        pods = {"start": OPTIONS, "end": OPTIONS}
        run.create(RunRecord("F", name, "flow.py", {}, self.graph, pods=pods, user=user or current_user(), **more))
        return run

    def job(
        self,
        run: str,
        step: str = "start",
        flow: str = "F",
        pod: dict[str, Any] | None = None,
        branches: Sequence[int] = (),
        per_pod: int = 1,
    ) -> str:
        """A Job of a run's task, or of some branches, with a pod that has a status: that of the first index."""
        specs = [TaskSpec(flow, run, TaskName(step, (branch,))) for branch in branches]
        tasks = TaskBatch.of(specs or [TaskSpec(flow, run, TaskName(step))])
        name = job_name(tasks)
        manifest = job_manifest(TaskJob(name, "lab", tasks, OPTIONS, "r/i:1", ("true",), per_pod=per_pod))
        self.server.put("jobs", manifest)
        if pod is not None:
            template = manifest["spec"]["template"]
            notes = {**template["metadata"]["labels"], labels.JOB_NAME: name}
            index = {labels.INDEX: "0"} if branches else {}
            annotations = {**template["metadata"]["annotations"], **index}
            metadata = {**template["metadata"], "name": f"{name}-x", "labels": notes, "annotations": annotations}
            spec = {**template["spec"], "nodeName": "node-1"}
            self.server.put("pods", {"metadata": metadata, "spec": spec, "status": pod})
        return f"{name}-x"


RUNNING = {"phase": "Running", "containerStatuses": [{"name": "task", "state": {"running": {}}}]}
PULLING = {
    "phase": "Pending",
    "containerStatuses": [{"name": "task", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}],
}
DONE = {
    "phase": "Succeeded",
    "containerStatuses": [
        {"name": "task", "state": {"terminated": {"exitCode": 0, "message": '{"outcome": "succeeded"}'}}}
    ],
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with fake_api() as server:
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server.access.server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        server.put("namespaces", {"metadata": {"name": "lab"}})
        yield Lab(server, tmp_path / "flow")


@pytest.fixture
def call(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The commands, as a flow's command line has them."""
    monkeypatch.setattr(cli, "_cluster", lambda _: lab.cluster)
    group = cli.command(compile_flow(lab.flow))
    return lambda *words: CliRunner().invoke(group, words)


class Said:
    """A console that keeps what is said."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str, tone: Tone = Tone.PLAIN, *, is_aside: bool = False) -> None:
        self.text += f"{text}\n"


def test_the_list_has_the_unfinished_tasks_of_this_flow(lab: Lab, call: Callable[..., Result]) -> None:
    """Whatever the names are; other flows, drivers and finished tasks are left out."""
    lab.run("one")
    lab.run("two", user="ann")
    lab.job("one", pod=RUNNING)
    lab.job("one", "end", pod=DONE)
    lab.job("two", pod=PULLING)
    lab.job("one", flow="Other", pod=RUNNING)
    driver = {"metadata": {"name": "d", "labels": labels.run_labels("F", "one")}, "spec": {}}
    lab.server.put("jobs", driver)
    text = call("list").output
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[1].split()[:4] == ["one", "start/0", "0", "running"]
    assert lines[2].split()[:4] == ["two", "start/0", "0", "waiting"]
    assert "Waiting: the image r/i:1 can't be pulled" in lines[3]
    assert "node-1" in lines[1]
    assert [task.run for task in selected(lab.cluster, None, "ann", ended=False)] == ["two"]
    assert "end/0" in call("list", "--all").output
    assert "two" not in call("list", "--run-id", "one").output
    assert json.loads(call("list", "--run-id", "F/two", "--json").output)[0]["state"] == "waiting"


def test_options_that_exclude_each_other_and_unknown_runs_are_refused(lab: Lab, call: Callable[..., Result]) -> None:
    lab.run("one")
    assert "exclude each other" in call("list", "--user", "ann", "--run-id", "one").output
    for command in ("list", "kill"):
        done = call(command, "--run-id", "ünbekannt $(id)")
        assert done.exit_code == 1
        assert "there is no run F/ünbekannt $(id)" in done.output
    assert "names no run of this file's flow" in call("list", "--run-id", "Other/one").output


@pytest.mark.parametrize(
    "words",
    [("list",), ("kill", "--yes"), ("kill", "--user", "ann", "--yes"), ("logs", "start"), ("describe", "start")],
)
def test_a_namespace_that_does_not_exist_is_reported(
    lab: Lab, call: Callable[..., Result], words: tuple[str, ...]
) -> None:
    """Kubernetes lists nothing there; and a run isn't marked as cancelled because of a wrong context."""
    run = lab.run("one")
    del lab.server.objects["namespaces", "lab"]
    done = call(*words)
    assert done.exit_code == 1
    assert "has no namespace 'lab'" in done.output
    assert "Create it (`kubectl create namespace lab`), or set kubernetes_namespace" in done.output
    assert run.read_run_outcome() is None


def test_a_description_for_programs_has_the_same_facts(lab: Lab, call: Callable[..., Result]) -> None:
    lab.run("one")
    lab.job("one", pod=PULLING)
    (found,) = json.loads(call("describe", "one/start/0", "--json").output)
    assert (found["run"], found["step"], found["task"], found["state"]) == ("one", "start", "0", "waiting")
    assert found["diagnosis"]["summary"].startswith("the image r/i:1 can't be pulled")
    assert found["diagnosis"]["outcome"] == "bad_image"
    assert (found["namespace"], found["image"], found["requests"]["cpu"]) == ("lab", "r/i:1", "100m")
    assert (found["events"], found["job_conditions"], found["pod_conditions"]) == ([], [], [])


def test_a_run_without_a_driver_is_marked_as_cancelled(lab: Lab) -> None:
    """Its Jobs and their owner are deleted, and the record says who did it."""
    run = lab.run("one")
    lab.run("two")
    lab.job("one", pod=RUNNING)
    lab.job("two", pod=RUNNING)
    lab.server.put("configmaps", {"metadata": {"name": owner_name(flow="F", run="one")}})
    said = Said()
    kill(lab.cluster, run, said)  # type: ignore[arg-type]  it needs no more of a console
    outcome = run.read_run_outcome()
    assert outcome is not None
    assert outcome.outcome is Outcome.CANCELLED
    assert outcome.summary.startswith(f"cancelled by {current_user()} on ")
    assert "had no driver; it is marked as cancelled" in said.text
    assert lab.server.names("configmaps") == []
    assert len(lab.server.names("jobs")) == 1


def test_a_driver_elsewhere_ends_its_run_itself(lab: Lab) -> None:
    """The request is in the bucket before the Jobs are deleted, which is what the driver sees first."""
    run = lab.run("one")
    lab.job("one", pod=RUNNING)
    driver = ObjectLease(run)
    assert driver.acquire()

    def drive() -> None:
        lab.server.wait(lambda: lab.server.asked("DELETE", "/jobs"))
        request = run.read_cancel_request()
        assert request is not None
        run.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), request.summary))

    thread = threading.Thread(target=drive)
    thread.start()
    said = Said()
    kill(lab.cluster, run, said)  # type: ignore[arg-type]  as above
    thread.join()
    assert f"F/one was cancelled by {current_user()} on " in said.text


def test_a_detached_run_is_ended_through_its_flowrun(lab: Lab) -> None:
    """The FlowRun owns everything, and its driver gets SIGTERM."""
    run = lab.run("one", is_detached=True)
    lab.server.put("flowruns", {"metadata": {"name": owner_name(flow="F", run="one")}})
    run.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), "cancelled"))  # by its driver
    kill(lab.cluster, run, Said())  # type: ignore[arg-type]  as above
    assert lab.server.names("flowruns") == []


def test_only_a_run_that_is_not_over_can_be_killed(lab: Lab) -> None:
    run = lab.run("one")
    run.write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, time.time()))
    with pytest.raises(RunError, match="F/one is over: it succeeded"):
        runs_to_kill(lab.cluster, "one", None)
    lab.run("two", user="ann")
    lab.job("two", pod=RUNNING)
    assert [run.run for run in runs_to_kill(lab.cluster, None, "ann")] == ["two"]


def test_kill_asks_first(lab: Lab, call: Callable[..., Result]) -> None:
    lab.run("one")
    lab.job("one", pod=RUNNING)
    done = call("kill")
    assert done.exit_code == 1
    assert "Add --yes." in done.output
    assert lab.server.names("jobs") != []


def test_the_log_comes_from_the_pod_or_else_from_the_bucket(lab: Lab, call: Callable[..., Result]) -> None:
    """Both streams, without the marks of the container's log."""
    run = lab.run("one")
    run.write_start("start", "0", 0)
    pod = lab.job("one", pod=DONE)
    lab.server.logs[pod] = [("2026-01-01T00:00:00.1Z", b"hello"), ("2026-01-01T00:00:00.2Z", b"\x1fworld")]
    done = call("logs", "one/start/0")
    assert done.output == "hello\nworld\n"
    lab.server.remove("pods", pod)
    assert "has no pod with a log of its own; this is its output in the bucket." in call("logs", "one/start/0").output
    done = call("logs", "one")
    assert "Name one, as STEP/TASK or RUN/STEP/TASK." in done.output
    assert "has no step 'ende'. " not in done.output
    assert "F/one has no step 'ende'" in call("logs", "one/ende/0").output


def test_a_branch_that_has_not_started_says_what_it_waits_for(lab: Lab, call: Callable[..., Result]) -> None:
    """Its turn in the pod that it shares, the pod's start, or a pod; the bucket has nothing of it yet."""
    run = lab.run("one")
    pod = lab.job("one", pod=RUNNING, branches=(0, 1, 2), per_pod=3)
    lab.server.logs[pod] = [("2026-01-01T00:00:00.1Z", encode_start("0").rstrip())]
    done = call("logs", "one/start/1")
    assert f"F/one/start/1 waits for its turn in pod {pod}, which it shares with other" in done.output
    assert done.exit_code == 0
    assert f"F/one/start/0 has started in pod {pod}, and has written nothing yet." in call("logs", "one/start/0").output
    lab.job("one", "end", pod=PULLING)
    lab.server.fail("GET", "/log", 400)
    assert "has not started: its pod" in call("logs", "one/end/0").output
    lab.run("two")
    lab.job("two", branches=(0, 1), per_pod=2)
    assert "has no pod yet" in call("logs", "two/start/1").output
    run.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), "cancelled"))
    assert "waits for its turn" in call("logs", "one/start/1", "--follow").output


def test_the_branches_of_an_indexed_job_are_distinguished(lab: Lab, call: Callable[..., Result]) -> None:
    """A pod is found by the task at its index."""
    lab.run("one")
    pod = lab.job("one", pod=DONE, branches=range(3, 20))
    lab.server.logs[pod] = [("2026-01-01T00:00:00.1Z", b"hello")]
    assert "start/3 " in call("list", "--all").output
    assert call("logs", "one/start/3").output == "hello\n"
    assert "one/start/3, attempt 0" in call("describe", "one/start/3").output
    assert "has no Job" in call("describe", "one/start/4").output


def test_a_description_has_the_diagnosis_and_the_events(lab: Lab, call: Callable[..., Result]) -> None:
    lab.run("one")
    lab.job("one", pod=PULLING)
    event = {
        "metadata": {"name": "e"},
        "type": "Warning",
        "reason": "Failed",
        "message": "Error: ErrImagePull",
        "lastTimestamp": "2026-01-01T10:00:00Z",
        "count": 3,
    }
    lab.server.put("events", event)
    text = call("describe", "one/start/0").output
    for expected in (
        "one/start/0, attempt 0",
        "the image r/i:1 can't be pulled: it does not exist.",
        "node-1",
        "cpu=100m, memory=200M",
        "10:00:00  Failed: Error: ErrImagePull (6 times)",  # the scripted server has it for the Job and for the pod
    ):
        assert expected in text
    missing = call("describe", "one/end/0").output
    assert "has no Job in namespace 'lab'" in missing
    assert "because the run failed or was cancelled" in missing


def test_without_a_cluster_or_rights_the_error_says_so(
    lab: Lab, call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run("one")
    body = {"reason": "Forbidden", "message": 'User "ann" cannot list resource "jobs"'}
    lab.server.fail("GET", "/jobs", 403, body=body)
    done = call("list")
    assert done.exit_code == 1
    assert "kubectl auth can-i list jobs.batch -n lab" in done.output
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert "no kubeconfig" in call("list").output


@given(flow=st.text(min_size=1), run=st.text(min_size=1))
def test_no_name_adds_to_a_selector(flow: str, run: str) -> None:
    """Quotes, commas, newlines and $(…) in names select exactly one run."""
    pairs = [part.split("=") for part in flow_selector(flow, run).split(",")]
    assert [key for key, _ in pairs] == [labels.MANAGED_BY, labels.FLOW, labels.RUN]
    assert all(
        set(value) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") for _, value in pairs
    )
    assert len(flow_selector(flow).split(",")) == 2


def test_an_unknown_step_is_named(lab: Lab) -> None:
    lab.run("one")
    with pytest.raises(NotFoundError):
        lab.cluster.runs.resolve("one/two/three/four/five", lab.cluster.runs.latest_own)
