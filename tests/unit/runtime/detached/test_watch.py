"""A detached run is followed to an end, even if its end is not in the store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from k8sflow.cli.terminal import Terminal
from k8sflow.config import Settings
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes.flowrun import flowrun_name
from k8sflow.runtime.commands.drive import drive_or_follow
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.detached.watch import FlowRunWatch
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.session import Session
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from tests.support import load_flow, write_flow
from tests.unit.controller.flowrun_api import FlowRunApi

FLOW = """
class F(FlowSpec):
    @step
    def start(self): self.next(self.end)
    @step
    def end(self): pass
"""
NAME = flowrun_name("F", "r1")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A run whose record says that it is detached."""
    graph = compile_flow(load_flow(write_flow(tmp_path, FLOW))).graph
    record = RunRecord("F", "r1", "flow.py", {}, graph, is_detached=True)
    run_store = RunStore(FolderStore(str(tmp_path / "store")), "F", "r1")
    run_store.create(record)
    return Session(record, run_store, Placement({}, "default"), Settings())


def _put(server: FlowRunApi, **status: Any) -> None:
    server.put("flowruns", {"metadata": {"name": NAME, "uid": "1"}, "spec": {}, "status": status})


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_continues_while_its_flowrun_does(server: FlowRunApi, session: Session) -> None:
    """However long it takes, and also before anybody has taken it up."""
    clock = Clock()
    watch = FlowRunWatch(session, Terminal(), clock)
    for status in ({}, {"phase": "Pending"}, {"phase": "Running"}):
        _put(server, **status)
        assert watch.driver().startswith("is driven by" if status else "waits for a controller: none has taken up")
        for _ in range(3):
            clock.now += 1000
            assert not watch.is_over()


@pytest.mark.parametrize(
    ("status", "outcome", "summary"),
    [
        (None, "cancelled", "its FlowRun is not in the cluster any more"),
        ({"phase": "Failed", "message": "the image is not there\nPush it."}, "never_started", "the image is not there"),
        ({"phase": "Cancelled"}, "cancelled", ""),
        ({"phase": "Succeeded"}, "succeeded", ""),
    ],
)
def test_the_flowrun_has_an_end_that_is_not_in_the_store(
    server: FlowRunApi, session: Session, status: dict[str, str] | None, outcome: str, summary: str
) -> None:
    """The driver has the time of a pod's end to write it itself; after that it is reported."""
    if status is not None:
        _put(server, **status)
    clock = Clock()
    watch = FlowRunWatch(session, Terminal(), clock)
    assert not watch.is_over()
    clock.now += 20
    assert not watch.is_over()
    clock.now += 40
    assert watch.is_over()
    assert watch.end is not None
    assert (watch.end.outcome, watch.end.summary) == (outcome, summary)


def test_an_unreachable_cluster_is_reported_once(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that looks; the run is followed all the same."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    clock = Clock()
    watch = FlowRunWatch(session, Terminal(), clock)
    for _ in range(3):
        clock.now += 1000
        assert not watch.is_over()
    printed = capsys.readouterr().err
    assert printed.count("can't be asked") == 1
    assert f"kubectl get flowrun {NAME} -n default" in printed


def test_attach_ends_where_the_flowrun_was_deleted(
    server: FlowRunApi, session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the store has an end from then on, so that nobody else waits for one."""
    monkeypatch.setattr("k8sflow.runtime.detached.watch._LAST_WORD_SECONDS", 0.0)
    assert drive_or_follow(session, Terminal(), time.monotonic(), take_over=True) is RunEnd.CANCELLED
    assert "F/r1 was cancelled at" in capsys.readouterr().out
    outcome = session.run_store.read_run_outcome()
    assert outcome is not None
    assert outcome.outcome == "cancelled"


def test_what_the_driver_has_written_counts(
    server: FlowRunApi, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its FlowRun was deleted by then."""
    monkeypatch.setattr("k8sflow.runtime.detached.watch._LAST_WORD_SECONDS", 0.0)
    session.run_store.write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, 1e9))
    assert drive_or_follow(session, Terminal(), time.monotonic(), take_over=True) is RunEnd.SUCCEEDED
