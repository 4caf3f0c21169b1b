"""The controller on a real cluster: unattended runs, drivers and controllers that die, and leftovers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kind.conftest import Namespace
from tests.kind.terminal import DEADLINE_SECONDS

CHECKOUT = Path(__file__).parents[2]
CHART = CHECKOUT / "charts" / "k8sflow"
DETACHED = ("--with", "kubernetes", "--detach")
TASKS = 6  # start, three branches, meet, end
CONTROLLER = "app.kubernetes.io/component=controller"
END_SECONDS = 150


@dataclass(frozen=True)
class Controller:
    """A release of the chart that watches the test's namespace."""

    namespace: Namespace

    def helm(self, *arguments: str) -> str:
        """The output of helm."""
        done = subprocess.run(
            [self.namespace.cluster.helm, *arguments, "--namespace", self.namespace.name],
            env=self.namespace.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self) -> None:
        """Installs CRD and chart, as an operator would; the cluster may have the CRD of an older checkout."""
        self.namespace.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
        repository, _, tag = self.namespace.cluster.image.rpartition(":")
        image = ("--set", f"image.repository={repository}", "--set", f"image.tag={tag}")
        self.helm("install", "k8sflow", str(CHART), *image, "--wait", "--timeout", "90s")

    def detach(self, flow: str | Path, *arguments: str, command: str = "run", **variables: str) -> FlowRun:
        """Runs or resumes a flow with ``--detach``; its client has ended when this returns."""
        done = self.namespace.command(flow, command, *arguments, *DETACHED, **variables).wait(DEADLINE_SECONDS)
        assert done.code == 0, done.text
        name = re.search(r"as FlowRun (\S+);", done.text)
        assert name, done.text
        return FlowRun(self.namespace, name[1])

    def create(self, name: str, **spec: Any) -> FlowRun:
        """Create a FlowRun like a user who doesn't use k8sflow's command line."""
        settings = {"credentials": "secret:k8sflow-s3", "endpoint": "http://s3.k8sflow-s3.svc:9000"}
        body = {"flow": "Detached", "code": {"store": "s3://k8sflow"}, "settings": settings, **spec}
        manifest = {"apiVersion": "k8sflow.dev/v1alpha1", "kind": "FlowRun", "metadata": {"name": name}, "spec": body}
        self.namespace.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        return FlowRun(self.namespace, name)

    def scale(self, replicas: int) -> None:
        """Starts or stops the controller, and waits until that is done."""
        self.namespace.kubectl("scale", "deployment/k8sflow-controller", f"--replicas={replicas}")
        self.namespace.kubectl("rollout", "status", "deployment/k8sflow-controller", "--timeout=60s")
        if replicas == 0:
            wait_until_deleted(self.namespace, "pods", CONTROLLER)


@dataclass(frozen=True)
class FlowRun:
    """A FlowRun in the cluster."""

    namespace: Namespace
    name: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.namespace.kubectl("get", "flowrun", self.name, "-o", "json"))
        return found

    @property
    def status(self) -> dict[str, Any]:
        return self.document.get("status", {})

    @property
    def run(self) -> str:
        """``flow/run``."""
        spec = self.document["spec"]
        return f"{spec['flow']}/{spec['run']}"

    @property
    def tasks(self) -> str:
        """Selects its tasks' Jobs and pods."""
        spec = self.document["spec"]
        return f"k8sflow.dev/flow={spec['flow']},k8sflow.dev/run={spec['run']},k8sflow.dev/step"

    def wait_for(self, path: str, value: str = "", seconds: float = END_SECONDS) -> dict[str, Any]:
        """Its status, once the field at ``path`` has the value, or is there at all."""
        condition = f"jsonpath={{{path}}}" + (f"={value}" if value else "")
        try:
            self.namespace.kubectl("wait", f"flowrun/{self.name}", f"--for={condition}", f"--timeout={seconds}s")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status}\n{self.log}") from None
        return self.status

    def wait_for_end(self) -> dict[str, Any]:
        return self.wait_for(".status.finishedAt")

    @property
    def log(self) -> str:
        """The output of its drivers."""
        selector = f"k8sflow.dev/flowrun={self.name}"
        return self.namespace.kubectl("logs", "-l", selector, "--tail=-1", "--ignore-errors", "--prefix")

    def driver(self) -> dict[str, Any]:
        """The pod of its living driver."""
        pods = self.namespace.objects("pods", f"k8sflow.dev/flowrun={self.name}")
        (living,) = [pod for pod in pods if pod["status"]["phase"] == "Running"]
        return living

    def delete(self) -> None:
        """``kubectl delete``, and a wait until nothing of it is left."""
        tasks = self.tasks
        self.namespace.kubectl("delete", "flowrun", self.name, "--timeout=20s")
        wait_until_deleted(self.namespace, "jobs,pods", tasks)
        wait_until_deleted(self.namespace, "jobs,pods", f"k8sflow.dev/flowrun={self.name}")


def wait_until_deleted(namespace: Namespace, kinds: str, selector: str) -> None:
    """Waits until the selector matches nothing."""
    namespace.kubectl("wait", kinds, "-l", selector, "--for=delete", "--timeout=60s")
    assert namespace.objects(kinds, selector) == []


@pytest.fixture(scope="module")
def before(namespace: Namespace) -> set[str]:
    """The objects from before the chart is installed."""
    return inventory(namespace)


@pytest.fixture(scope="module")
def controller(namespace: Namespace, before: set[str]) -> Iterator[Controller]:
    """The installed chart."""
    release = Controller(namespace)
    release.install()
    yield release
    release.helm("uninstall", "k8sflow", "--ignore-not-found", "--wait")


def inventory(namespace: Namespace) -> set[str]:
    """The names of all objects in the namespace, and of those that the chart could leave outside it."""
    kinds = namespace.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    transient = ("events", "leases", "endpoint", "flowruns")
    kinds = [kind for kind in kinds if not kind.startswith(transient)]
    kinds += ["clusterroles", "clusterrolebindings", "validatingwebhookconfigurations", "priorityclasses"]
    return set(namespace.kubectl("get", ",".join(kinds), "-o", "name").split())


def one_pod_per_task(run: FlowRun) -> bool:
    """Report if each task ran in one pod, once."""
    pods = run.namespace.objects("pods", run.tasks)
    tasks = {
        (p["metadata"]["annotations"]["k8sflow.dev/step"], p["metadata"]["annotations"]["k8sflow.dev/task"])
        for p in pods
    }
    return len(pods) == len(tasks) == TASKS


def kill_driver(run: FlowRun) -> None:
    """``kill -9`` of the driver's process, from its node."""
    uid = run.driver()["metadata"]["uid"]
    script = (
        f"for p in /proc/[0-9]*; do grep -qs -e {uid} -e {uid.replace('-', '_')} $p/cgroup "
        '&& tr "\\0" " " <$p/cmdline | grep -qs "k8sflow drive" && kill -9 ${p#/proc/} && echo killed; done; true'
    )
    assert "killed" in run.namespace.cluster.kind.in_node("sh", "-c", script, doing="kill the driver")


def test_a_detached_run_completes_with_no_client_alive(controller: Controller, client: Callable[[str], Any]) -> None:
    """BigSum is detached, and its client has ended; FlowRun and bucket show the rest."""
    run = controller.detach(CHECKOUT / "examples" / "bigsum.py", "--n", "1000")
    status = run.wait_for_end()
    assert status["phase"] == "Succeeded", run.log
    assert status["tasks"] == {"total": 2, "running": 0, "done": 2, "failed": 0}
    total = client(run.run)["end"].task.data.total
    assert abs(total - 1000**2 / 2) < 2000
    row = controller.namespace.kubectl("get", "flowrun", run.name).splitlines()
    assert row[0].split() == ["NAME", "FLOW", "PHASE", "DONE", "TOTAL", "AGE", "MESSAGE"]
    assert row[1].split()[:5] == [run.name, "BigSum", "Succeeded", "2", "2"]
    assert len(json.dumps(status)) < 10_000


def test_a_run_is_resumed_with_no_client_alive(controller: Controller, client: Callable[[str], Any]) -> None:
    """The driver clones finished tasks, which get no pods, and counts them; attach shows its end."""
    first = controller.detach("detached.py")
    assert first.wait_for_end()["phase"] == "Succeeded", first.log
    origin = first.run.partition("/")[2]
    run = controller.detach("detached.py", "meet", "--origin-run-id", origin, command="resume")
    follower = controller.namespace.command("detached.py", "attach", run.run)
    assert run.wait_for_end()["phase"] == "Succeeded", run.log
    assert run.status["tasks"] == {"total": TASKS, "running": 0, "done": TASKS, "failed": 0}
    steps = [p["metadata"]["annotations"]["k8sflow.dev/step"] for p in run.namespace.objects("pods", run.tasks)]
    assert sorted(steps) == ["end", "meet"]
    assert client(run.run)["end"].task.data.total == 14
    assert client(run.run)["start"].task.origin_pathspec == f"{first.run}/start/0"
    assert follower.wait(60).code == 0, follower.text


def test_its_objects_have_no_finalizer_and_no_foreign_annotation(controller: Controller) -> None:
    """Without the framework's marks a FlowRun can be deleted without a controller."""
    run = controller.detach("detached.py")
    run.wait_for_end()
    metadata = run.document["metadata"]
    assert "finalizers" not in metadata
    assert set(metadata["annotations"]) == {"k8sflow.dev/flow", "k8sflow.dev/run"}
    for job in controller.namespace.objects("jobs", run.tasks):
        assert [owner["kind"] for owner in job["metadata"]["ownerReferences"]] == ["FlowRun"]
        assert job["spec"]["template"]["spec"]["serviceAccountName"] == "k8sflow-task"


def test_driver_and_tasks_log_at_the_level_of_the_client_and_the_controller_logs_json(controller: Controller) -> None:
    run = controller.detach("detached.py", K8SFLOW_LOG="debug")
    run.wait_for_end()
    assert re.search(r"DEBUG k8sflow\.kubernetes\.reflector: \S+/pods: listed \d+ objects", run.log)
    (pod, *_) = controller.namespace.objects("pods", run.tasks)
    variables = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    assert variables["K8SFLOW_LOG"] == "debug"
    lines = controller.namespace.kubectl("logs", "-l", CONTROLLER, "--tail=-1").splitlines()
    records = [json.loads(line) for line in lines]
    assert f"driver Job {run.name}-driver created" in str([r["message"] for r in records if r["severity"] == "info"])


def test_two_runs_at_once_get_a_driver_each(controller: Controller, client: Callable[[str], Any]) -> None:
    runs = [controller.detach("detached.py", "--seconds", "8") for _ in range(2)]
    assert [run.wait_for_end()["phase"] for run in runs] == ["Succeeded", "Succeeded"]
    intervals = [(run.status["startedAt"], run.status["finishedAt"]) for run in runs]
    assert max(began for began, _ in intervals) < min(ended for _, ended in intervals)
    assert [client(run.run)["end"].task.data.total for run in runs] == [14, 14]


def test_kill_9_of_the_driver_costs_no_task(controller: Controller, client: Callable[[str], Any]) -> None:
    """Another driver continues from the store and the running Jobs; each task has had one pod."""
    run = controller.detach("detached.py", "--seconds", "10")
    run.wait_for(".status.tasks.running", "3")
    kill_driver(run)
    status = run.wait_for_end()
    assert status["phase"] == "Succeeded", run.log
    assert status["tasks"] == {"total": TASKS, "running": 0, "done": TASKS, "failed": 0}
    assert one_pod_per_task(run)
    assert client(run.run)["end"].task.data.total == 14
    assert run.status["driver"]["restarts"] == 1


def test_a_driver_that_is_stopped_is_replaced_by_another(controller: Controller, client: Callable[[str], Any]) -> None:
    """Draining its node stops it: nothing is cancelled, and a follower of the run sees its end."""
    run = controller.detach("detached.py", "--seconds", "10")
    follower = controller.namespace.command("detached.py", "attach", run.run)
    run.wait_for(".status.tasks.running", "3")
    controller.namespace.kubectl("delete", "pod", run.driver()["metadata"]["name"], "--wait=false")
    assert run.wait_for_end()["phase"] == "Succeeded", run.log
    assert one_pod_per_task(run)
    assert follower.wait(60).code == 0, follower.text
    assert "is driven by a driver in the cluster" in follower.text
    assert "total 14" in follower.text
    assert client(run.run)["end"].task.data.total == 14


def test_the_death_of_a_controller_does_not_affect_runs(controller: Controller) -> None:
    """Its pod is killed while one run is in flight and another is detached."""
    first = controller.detach("detached.py", "--seconds", "8")
    first.wait_for(".status.tasks.running", "3")
    controller.namespace.kubectl("delete", "pod", "-l", CONTROLLER, "--grace-period=0", "--force")
    second = controller.detach("detached.py")
    assert [run.wait_for_end()["phase"] for run in (first, second)] == ["Succeeded", "Succeeded"]
    assert first.status["driver"]["restarts"] == 0


def test_deleting_a_flowrun_ends_its_run(controller: Controller, client: Callable[[str], Any]) -> None:
    """No Job and no pod remains, and the record says cancelled."""
    run = controller.detach("detached.py", "--seconds", "600")
    run.wait_for(".status.tasks.running", "3")
    name = run.run
    run.delete()
    assert client(name).outcome.outcome == "cancelled"


def test_deleting_works_without_a_controller(controller: Controller) -> None:
    """Ownership deletes the objects, not the controller."""
    run = controller.detach("detached.py", "--seconds", "600")
    run.wait_for(".status.tasks.running", "3")
    controller.scale(0)
    try:
        run.delete()
        waiting = controller.create("waits-for-a-controller", run="r1")
        assert waiting.status == {}
    finally:
        controller.scale(1)
    assert waiting.wait_for_end()["phase"] == "Failed"


def test_kubectl_get_shows_a_failing_flow(controller: Controller) -> None:
    run = controller.detach("detached.py", "--broken", "true")
    status = run.wait_for_end()
    assert status["phase"] == "Failed"
    assert "work/" in status["message"]
    assert "this flow was asked to fail" in controller.namespace.kubectl("get", "flowrun", run.name)
    assert status["tasks"]["failed"] >= 1
    assert status["driver"]["restarts"] <= 1  # it is not retried


def test_a_run_that_is_not_in_the_bucket_is_reported(controller: Controller) -> None:
    status = controller.create("no-such-run", run="r1").wait_for_end()
    assert (status["phase"], status["message"].splitlines()[0]) == (
        "Failed",
        "there is no run Detached/r1 in s3://k8sflow.",
    )


def test_a_missing_code_package_is_reported(controller: Controller, client: Callable[[str], Any]) -> None:
    """The record names a package that doesn't exist."""
    done = controller.detach("detached.py")
    done.wait_for_end()
    flow, _, run = done.run.partition("/")
    store = bucket(controller.namespace)
    record = json.loads(bytes(store.get(f"{flow}/runs/{run}/run.json")))
    lost = {**record, "run": f"{run}-lost", "package": "0" * 64}
    assert store.put_new(f"{flow}/runs/{run}-lost/run.json", json.dumps(lost).encode())
    status = controller.create("lost-package", run=f"{run}-lost").wait_for_end()
    assert status["phase"] == "Failed"
    assert "start/0 failed (storage error)" in status["message"]


def test_a_missing_secret_is_reported_while_the_driver_waits(controller: Controller) -> None:
    run = controller.create("no-secret", run="r1", settings={"credentials": "secret:nobody"})
    message = 'the driver\'s pod waits: CreateContainerConfigError: secret "nobody" not found'
    assert run.wait_for(".status.message", message)["phase"] == "Pending"
    run.delete()


def test_the_api_server_refuses_unsupported_fields(controller: Controller) -> None:
    code = {"store": "s3://k8sflow"}
    for name, spec in {
        "x" * 51: {"run": "r1"},
        "bad-flow": {"run": "r1", "flow": "--help"},
        "bad-store": {"run": "r1", "code": {"store": "file:///etc"}},
        "bad-memory": {"run": "r1", "driver": {"resources": {"memory": "much"}}},
        "pod-spec": {"run": "r1", "driver": {"podSpec": {}}},
    }.items():
        with pytest.raises(AssertionError, match=r"is invalid|unknown field"):
            controller.create(name, **{"code": code, **spec})


def test_a_spec_is_immutable(controller: Controller) -> None:
    run = controller.create("stays", run="r1")
    with pytest.raises(AssertionError, match="can't be changed"):
        controller.namespace.kubectl("patch", "flowrun", run.name, "--type=merge", "-p", '{"spec":{"run":"r2"}}')
    run.delete()


def test_a_driver_image_that_is_not_allowed_starts_nothing(controller: Controller) -> None:
    run = controller.create("image", run="r1", driver={"image": "somebody/else:1"})
    assert "'somebody/else:1' is not allowed here" in run.wait_for_end()["message"]
    assert controller.namespace.objects("jobs", f"k8sflow.dev/flowrun={run.name}") == []


def test_a_service_account_that_is_not_allowed_is_refused(controller: Controller) -> None:
    run = controller.detach("detached.py", "--with", "kubernetes:service_account=k8sflow-driver")
    status = run.wait_for_end()
    assert status["phase"] == "Failed"
    assert "asks for the service account 'k8sflow-driver', which is not allowed here" in status["message"]
    assert controller.namespace.objects("jobs", run.tasks) == []


@pytest.mark.parametrize(
    ("account", "question", "answer"),
    [
        ("k8sflow-controller", "create jobs", "yes"),
        ("k8sflow-controller", "delete jobs", "no"),
        ("k8sflow-controller", "get secrets", "no"),
        ("k8sflow-controller", "delete flowruns", "no"),
        ("k8sflow-driver", "create jobs", "yes"),
        ("k8sflow-driver", "create pods", "no"),
        ("k8sflow-driver", "get secrets", "no"),
        ("k8sflow-driver", "create flowruns", "no"),
        ("k8sflow-task", "get pods", "no"),
    ],
)
def test_permissions_are_minimal(controller: Controller, account: str, question: str, answer: str) -> None:
    user = f"system:serviceaccount:{controller.namespace.name}:{account}"
    done = subprocess.run(
        [controller.namespace.cluster.kubectl, "auth", "can-i", *question.split(), f"--as={user}",
         f"--namespace={controller.namespace.name}"],
        env=controller.namespace.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == answer


def test_an_unwatched_namespace_is_reported_before_anything_is_uploaded(controller: Controller) -> None:
    done = controller.namespace.run("detached.py", *DETACHED, K8SFLOW_KUBERNETES_NAMESPACE="kube-public")
    assert done.code == 1
    assert "no controller looks after FlowRuns in the namespace 'kube-public'" in done.text
    assert "watchNamespaces" in done.text


def test_the_plain_manifests_are_the_rendered_chart(namespace: Namespace) -> None:
    """manifests/render >manifests/install.yaml"""
    environment = {**os.environ, "PATH": f"{namespace.cluster.helm.parent}:{os.environ['PATH']}"}
    rendered = subprocess.run(
        [CHECKOUT / "manifests" / "render"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert rendered == (CHECKOUT / "manifests" / "install.yaml").read_text()
    namespace.kubectl(
        "apply",
        "--dry-run=client",
        "--validate=ignore",
        "-n",
        "k8sflow",
        "-f",
        str(CHECKOUT / "manifests/install.yaml"),
    )


def test_the_controller_runs_with_minimal_permissions(controller: Controller) -> None:
    """Its pod was admitted under "restricted", reports that it is alive, and has not been restarted."""
    (pod,) = controller.namespace.objects("pods", CONTROLLER)
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"]
    assert status["restartCount"] == 0


def test_deleting_flowruns_and_release_leaves_nothing_but_the_crd(controller: Controller, before: set[str]) -> None:
    """A run may be in flight when the release is uninstalled."""
    run = controller.detach("detached.py", "--seconds", "600")
    run.wait_for(".status.tasks.running", "3")
    controller.helm("uninstall", "k8sflow", "--wait")
    run.delete()
    controller.namespace.kubectl("delete", "flowruns", "--all", "--timeout=30s")
    for label in ("k8sflow.dev/step", "k8sflow.dev/flowrun"):
        wait_until_deleted(controller.namespace, "jobs,pods", label)
    assert inventory(controller.namespace) == before
    assert "flowruns.k8sflow.dev" in controller.namespace.kubectl("get", "crds", "-o", "name")


def bucket(namespace: Namespace) -> Any:
    """The runs' bucket, as this machine reaches it."""
    from k8sflow.storage.s3 import S3Store

    return S3Store("s3://k8sflow", endpoint=namespace.environment["K8SFLOW_ENDPOINT"], region="us-east-1")
