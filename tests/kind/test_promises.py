"""@timeout, @catch and @exit_hook in pods behave as on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import images
from tests.kind.conftest import Namespace
from tests.kind.test_controller import Controller, kill_driver
from tests.support import wait_for

KUBERNETES = ("--with", "kubernetes")
FLOW = """
import os, time
from k8sflow import FlowSpec, Parameter, catch, environment, exit_hook, resources, step, timeout
from k8sflow.exception import TimeoutException

SMALL = {"cpu": 0.05, "memory": 150}

def succeeded(run):
    print("hook after", run.pathspec, run.successful, run.data.words, "in", os.environ.get("K8SFLOW_POD") or "no pod")

def failed(run):
    print("hook after a failure of", run.pathspec)

def broken(run):
    raise ValueError("hook")

@exit_hook(on_success=[broken, succeeded], on_error=[failed])
class Promises(FlowSpec):
    fails = Parameter("fails", default="no")

    @catch(var="error")
    @timeout(seconds=3)
    @environment(vars={"A": "upper", "B": "upper"})
    @environment(vars={"B": "lower"})
    @resources(**SMALL)
    @step
    def start(self):
        self.words = [os.environ["A"], os.environ["B"]]
        try:
            time.sleep(600)
        except TimeoutException:
            self.words.append("except")
            raise
        finally:
            self.words.append("finally")
        self.next(self.stubborn)

    @catch(var="killed")
    @timeout(seconds=3, grace_seconds=1)
    @resources(**SMALL)
    @step
    def stubborn(self):
        self.lost = True
        while True:
            try:
                time.sleep(600)
            except Exception:
                pass
        self.next(self.end)

    @resources(**SMALL)
    @step
    def end(self):
        assert self.fails == "no"
        print(self.words, self.error.type, self.killed.type, self.error.exception == self.killed.exception)
        self.words += [hasattr(self, "lost")]

if __name__ == "__main__":
    Promises()
"""


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """The file of the flow."""
    file = tmp_path / "promises.py"
    file.write_text(FLOW)
    return file


@pytest.fixture
def controller(namespace: Namespace) -> Iterator[Controller]:
    """A controller for the namespace."""
    found = Controller(namespace)
    found.install()
    yield found
    found.helm("uninstall", "k8sflow", "--wait")


def test_a_timeout_in_a_pod_is_raised_in_the_step(
    namespace: Namespace, flow: Path, client: Callable[[str], Any]
) -> None:
    """``except`` and ``finally`` run, @catch keeps what was set, a step that ignores it is killed; hooks run here."""
    run = f"promises-{namespace.name}"  # the bucket outlives the test
    done = namespace.run(flow, *KUBERNETES, "--run-id", run)
    assert done.code == 0, done.text
    found = client(f"Promises/{run}")
    assert found.data.words == ["upper", "lower", "except", "finally", False]
    kind = "k8sflow.errors.TimeoutException"
    assert found["end"].task.stdout == f"{found.data.words[:4]} {kind} {kind} True\n"
    task = found["start"].task
    assert (task.successful, task.finished, task.exception) == (False, True, None)
    assert "The exit hook broken failed: ValueError: hook" in done.text
    assert f"[exit hook succeeded] hook after Promises/{run} True" in done.text
    assert "in no pod" in done.text


@pytest.mark.parametrize(
    ("fails", "words"), [("no", "hook after Promises/{} True"), ("yes", "hook after a failure of")]
)
def test_hooks_of_a_detached_run_are_called_in_pods(controller: Controller, flow: Path, fails: str, words: str) -> None:
    """The driver doesn't have the flow's code; a failing hook doesn't change the run's outcome."""
    detached = controller.detach(flow, "--fails", fails)
    status = detached.wait_for_end()
    assert status["phase"] == ("Succeeded" if fails == "no" else "Failed")
    log = controller.namespace.kubectl("logs", f"job/{detached.name}-driver")
    assert words.format(detached.run.partition("/")[2]) in log
    if fails == "no":
        assert "The exit hook broken failed: ValueError: hook" in log
        assert "in no pod" not in log


TAKEN_OVER = """
import os, time
from k8sflow import FlowSpec, environment, exit_hook, resources, step

def quick(run):
    print("quick has run")

def slow(run):
    print("slow has started", flush=True)
    time.sleep(20)  # in which the driver is killed
    print("slow has ended")

def other(run):
    print("other runs in", os.environ["IMAGE_KIND"])

@exit_hook(on_success=[quick, slow])
@exit_hook(on_success=[other], options={"image": "IMAGE"})
class TakenOver(FlowSpec):
    @environment(vars={"PYTHONPATH": "/mine"})
    @resources(cpu=0.05, memory=150)
    @step
    def start(self):
        import subprocess, sys
        self.path = os.environ["PYTHONPATH"]
        code = "import k8sflow, sys; print('/mine' in sys.path)"
        self.of_child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        self.next(self.end)

    @resources(cpu=0.05, memory=150)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    TakenOver()
"""


@pytest.fixture
def other_image(namespace: Namespace, tmp_path: Path) -> str:
    """An image that is known by a variable."""
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f"FROM {namespace.cluster.plain_image}\nENV IMAGE_KIND=another-image\n")
    recipe = images.Recipe("k8sflow-test/hooks", {"Dockerfile": dockerfile})
    reference = images.ensure(recipe, namespace.cluster.kind.engine)
    namespace.cluster.load_image(reference)
    return reference


def test_a_driver_that_takes_over_repeats_no_hook(
    controller: Controller, client: Callable[[str], Any], tmp_path: Path, other_image: str
) -> None:
    """``kill -9`` while the second of three hooks runs: each runs once, the last one in the image of its options."""
    file = tmp_path / "taken_over.py"
    file.write_text(TAKEN_OVER.replace('"IMAGE"', repr(other_image)))
    run = controller.detach(file)
    wait_for(lambda: "[exit hook slow] slow has started" in run.log, 150)
    kill_driver(run)
    assert run.wait_for_end()["phase"] == "Succeeded"
    log = run.log
    assert log.count("quick has run") == 1
    assert "The exit hook quick was called by an earlier driver: succeeded." in log
    assert "The exit hook slow was started by an earlier driver" in log
    assert "[exit hook other] other runs in another-image" in log
    run_id = run.run.partition("/")[2]
    pods = controller.namespace.objects("pods", f"k8sflow.dev/step=exit-hook,k8sflow.dev/run={run_id}")
    assert len(pods) == 3
    data = client(run.run)["start"].task.data
    assert data.path.split(":")[:2] == ["/opt/k8sflow", "/mine"]
    assert data.of_child == "True\n"


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://s3.nowhere.invalid:9000", "its name can't be resolved by DNS"),
        ("http://{node}:9", "the connection was refused, so nothing listens there"),
    ],
)
def test_a_wrong_endpoint_of_the_pods_is_reported_by_the_first_task(
    namespace: Namespace, flow: Path, endpoint: str, words: str
) -> None:
    """The run ends with it, after one pod; a Service that doesn't exist is reported before the run starts."""
    (node,) = namespace.objects("nodes")
    address = next(found["address"] for found in node["status"]["addresses"] if found["type"] == "InternalIP")
    done = namespace.run(flow, *KUBERNETES, K8SFLOW_IN_CLUSTER_ENDPOINT=endpoint.format(node=address))
    assert done.code == 1
    assert words in done.text
    assert "K8SFLOW_IN_CLUSTER_ENDPOINT" in done.text
    assert "runs again" not in done.text
