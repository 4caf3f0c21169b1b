"""``resume --detach``: the laptop shows the plan and detaches the new run, the driver in the cluster clones and runs.

The API server is a scripted one; the bucket is real.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from k8sflow.cli.terminal import Terminal
from k8sflow.config import Settings
from k8sflow.errors import KubernetesError, RunError
from k8sflow.executors.base import Finished, Report, Started
from k8sflow.flow.compile import compile_flow, declared
from k8sflow.flow.outcome import Outcome
from k8sflow.flow.spec import FlowSpec
from k8sflow.kubernetes.flowrun import flowrun_name
from k8sflow.runtime.commands import clone, resume
from k8sflow.runtime.commands.drive_detached import drive_detached
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.request import RunRequest
from k8sflow.runtime.session import Session
from k8sflow.storage.clones import is_complete
from k8sflow.storage.records import Commit, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskSpec
from tests import s3server
from tests.support import load_flow, write_flow
from tests.unit.controller.flowrun_api import FlowRunApi

pytestmark = pytest.mark.s3
FLOW = """
class F(FlowSpec):
    @step
    def start(self): self.next(self.work)
    @step
    def work(self): self.next(self.end)
    @step
    def end(self): pass
"""
WAYS = {"start": ("work",), "work": ("end",), "end": ()}


class Cluster:
    """Runs the tasks of a run at once, by committing them."""

    def __init__(self, run_store: RunStore) -> None:
        self.run_store = run_store
        self.ran: list[str] = []

    def executor(self, _name: str, report: Report, **_: Any) -> Cluster:
        self.report = report
        return self

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        for task in tasks:
            step = task.name.step
            self.ran.append(str(task.name))
            assert self.run_store.commit(step, task.name.id, Commit(0, WAYS[step], {}))
            self.report(Started(task, "node"))
            self.report(Finished(task, TaskResult(Outcome.SUCCEEDED, Transition(WAYS[step]))))

    def cancel(self) -> None:
        """Nothing runs."""

    end = cancel

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def flow(tmp_path: Path) -> type[FlowSpec]:
    return load_flow(write_flow(tmp_path / "flow", FLOW))


@pytest.fixture
def settings(s3_store: S3Store, server: FlowRunApi) -> Settings:
    """Those of a bucket and a cluster with the controller."""
    server.put("serviceaccounts", {"metadata": {"name": "k8sflow-driver"}})
    server.put("namespaces", {"metadata": {"name": "lab"}})
    server.first_status = {"phase": "Pending"}
    bucket = f"{s3server.BUCKET}/{s3_store.prefix.rstrip('/')}"
    inside = "https://s3.example.com"
    return Settings(
        bucket=bucket,
        endpoint=s3_store.endpoint,
        in_cluster_endpoint=inside,
        region="us-east-1",
        kubernetes_namespace="lab",
    )


@pytest.fixture
def origin(s3_store: S3Store, flow: type[FlowSpec]) -> RunStore:
    """A run that has ended without its last two tasks."""
    store = RunStore(s3_store, "F", "r0")
    store.create(RunRecord("F", "r0", "flow.py", {}, compile_flow(flow).graph))
    store.commit("start", "0", Commit(0, WAYS["start"], {}))
    return store


def _request(flow: type[FlowSpec], settings: Settings, **more: Any) -> RunRequest:
    asked = {"run_id": "r1", "decorators": ("kubernetes",), "is_detached": True, **more}
    return RunRequest(declared(flow), settings, **asked)


def test_the_plan_is_shown_and_the_run_detached(
    flow: type[FlowSpec], settings: Settings, origin: RunStore, server: FlowRunApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its record names its origin; a dry run detaches nothing."""
    assert resume.resume(_request(flow, settings), "r0", None, Terminal(), dry_run=True)
    assert server.names("flowruns") == []
    assert resume.resume(_request(flow, settings), "r0", None, Terminal(), dry_run=False)
    said = capsys.readouterr().out
    assert said.index("1 cloned") < said.index("F/r1 is detached as FlowRun")
    record = RunStore(origin.store, "F", "r1").read()
    assert (record.origin_run_id, record.is_detached) == ("r0", True)
    assert record.package is not None
    assert server.names("flowruns") == [flowrun_name("F", "r1")]


def test_the_end_of_a_driver_that_could_not_write_to_the_bucket_is_that_of_its_flowrun(
    flow: type[FlowSpec], settings: Settings, origin: RunStore, server: FlowRunApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after its keys were refused; without a FlowRun nothing is claimed."""
    graph = compile_flow(flow).graph
    store = RunStore(origin.store, "F", "r5")
    store.create(RunRecord("F", "r5", "flow.py", {}, graph, is_detached=True))
    store.commit("start", "0", Commit(0, WAYS["start"], {}))
    assert resume.resume(_request(flow, settings), "r5", None, Terminal(), dry_run=True)
    assert "Resuming F/r5, which has no recorded end: its driver died, could not write it" in capsys.readouterr().out
    status = {"phase": "Failed", "message": "the bucket doesn't accept the keys.\nCheck them."}
    server.put("flowruns", {"metadata": {"name": flowrun_name("F", "r5")}, "status": status})
    assert resume.resume(_request(flow, settings), "r5", None, Terminal(), dry_run=True)
    assert "Resuming F/r5, which failed (the bucket doesn't accept the keys):" in capsys.readouterr().out


def test_the_driver_in_the_cluster_clones_and_continues(
    flow: type[FlowSpec],
    settings: Settings,
    origin: RunStore,
    server: FlowRunApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the first one dies in the middle of that (I5); the FlowRun's counters have the clones too."""
    assert resume.resume(_request(flow, settings), "r0", None, Terminal(), dry_run=False)
    name, run_store = flowrun_name("F", "r1"), RunStore(origin.store, "F", "r1")
    cluster = Cluster(run_store)
    monkeypatch.setattr(
        Session, "executor", lambda _session, name, report, **more: cluster.executor(name, report, **more)
    )

    class Killed(BaseException):
        """The pod is dead."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(clone, "mark_complete", die)
        with pytest.raises(Killed):
            drive_detached(settings, "F", "r1", name, Terminal())
    assert not is_complete(run_store)
    assert cluster.ran == []
    assert drive_detached(settings, "F", "r1", name, Terminal()) is RunEnd.SUCCEEDED
    assert cluster.ran == ["work/0", "end/0"]
    assert is_complete(run_store)
    commit = run_store.read_commit("start", "0")
    assert commit is not None
    assert commit.origin == "F/r0"
    flowrun = server.get("flowruns", name)
    assert flowrun is not None
    assert flowrun["status"]["phase"] == "Succeeded"
    assert flowrun["status"]["tasks"] == {"total": 3, "running": 0, "done": 3, "failed": 0}


def test_a_driver_that_is_cancelled_while_it_clones_says_so(
    flow: type[FlowSpec], settings: Settings, origin: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its FlowRun is deleted: the store has an end for who follows the run."""
    assert resume.resume(_request(flow, settings), "r0", None, Terminal(), dry_run=False)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clone, "mark_complete", interrupted)
    assert drive_detached(settings, "F", "r1", flowrun_name("F", "r1"), Terminal()) is RunEnd.CANCELLED
    outcome = RunStore(origin.store, "F", "r1").read_run_outcome()
    assert outcome is not None
    assert outcome.outcome == "cancelled"


@pytest.mark.usefixtures("origin")
def test_a_run_that_can_not_be_detached_is_refused_before_anything_is_written(
    flow: type[FlowSpec], settings: Settings, s3_store: S3Store, server: FlowRunApi
) -> None:
    """Steps on this machine also by a dry run; a cluster without the controller."""
    with pytest.raises(RunError, match="start, work, end would run on this machine"):
        resume.resume(_request(flow, settings, decorators=()), "r0", None, Terminal(), dry_run=True)
    server.has_crd = False
    with pytest.raises(KubernetesError, match="has no FlowRuns"):
        resume.resume(_request(flow, settings), "r0", None, Terminal(), dry_run=False)
    assert not s3_store.exists("F/runs/r1/run.json")
