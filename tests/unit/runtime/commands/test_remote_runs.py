"""The runs of any system: the work for one run ends, whatever happens to another run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from k8sflow.errors import BatchError, RunError
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.commands.remote_runs import kill_all, runs_to_kill, selected
from k8sflow.runtime.lookup import Runs
from k8sflow.runtime.progress.console import Tone
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore


@dataclass(frozen=True)
class Job:
    run: str
    is_over: bool = False


@dataclass
class Elsewhere:
    """Runs ``r1`` to ``r3`` of two users on a system that doesn't end ``r1``."""

    runs: Runs
    system: str = "Elsewhere"
    command: str = "elsewhere"
    fate: str = "its jobs are ended"
    ended: list[str] = field(default_factory=list)

    jobs: list[Job] = field(
        default_factory=lambda: [Job("r1"), Job("r2"), Job("r3"), Job("r3", is_over=True), Job("missing")]
    )

    def work(self, run: str | None = None) -> list[Job]:
        return [job for job in self.jobs if run in {None, job.run}]

    def has_steps(self, record: RunRecord) -> bool:
        return record.run != "r3"

    def check(self, run: RunStore) -> None:
        pass

    def end(self, run: RunStore) -> None:
        if run.run == "r1":
            raise BatchError("its jobs may not be terminated")
        self.ended.append(run.run)


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str, tone: Tone = Tone.PLAIN, *, is_aside: bool = False) -> None:
        self.lines.append(text)


@pytest.fixture
def elsewhere() -> Elsewhere:
    store = MemoryStore()
    for name, user in (("r1", "ada"), ("r2", "ada"), ("r3", "bob")):
        RunStore(store, "F", name).create(RunRecord("F", name, "f.py", {}, Graph("F"), user=user))
    return Elsewhere(Runs("F", [store]))


def test_what_still_runs_of_an_ended_run_can_be_killed(elsewhere: Elsewhere) -> None:
    """As after a failure whose driver could not end the other tasks; the run's own end stays what it is."""
    screen = Screen()
    for name in ("r2", "r3"):
        elsewhere.runs[name].write_run_outcome(OutcomeRecord(Outcome.USER_ERROR, 1.0, "failed"))
    kill_all(elsewhere, runs_to_kill(elsewhere, "r2", None), screen)
    assert elsewhere.ended == ["r2"]
    assert screen.lines == ["F/r2 had ended already; its jobs are ended."]
    outcome = elsewhere.runs["r2"].read_run_outcome()
    assert outcome is not None
    assert outcome.summary == "failed"
    elsewhere.jobs = [Job("r3", is_over=True)]
    with pytest.raises(RunError, match="F/r3 is over: it has ended"):
        runs_to_kill(elsewhere, "r3", None)


def test_a_run_that_can_not_be_ended_does_not_keep_the_others(elsewhere: Elsewhere) -> None:
    screen = Screen()
    runs = runs_to_kill(elsewhere, None, "ada")
    with pytest.raises(BatchError, match="may not be terminated"):
        kill_all(elsewhere, runs, screen)
    assert elsewhere.ended == ["r2"]
    assert screen.lines == ["F/r2 had no driver; it is marked as cancelled, and its jobs are ended."]
    outcome = elsewhere.runs["r2"].read_run_outcome()
    assert outcome is not None
    assert outcome.outcome is Outcome.CANCELLED
    assert elsewhere.runs["r1"].read_run_outcome() is None


def test_work_is_selected_by_user_and_by_whether_it_is_over(elsewhere: Elsewhere) -> None:
    """A run without a record belongs to nobody."""
    assert selected(elsewhere, None, "bob", ended=True) == [Job("r3"), Job("r3", is_over=True)]
    assert selected(elsewhere, None, "bob", ended=False) == [Job("r3")]
    assert len(selected(elsewhere, None, None, ended=True)) == 5
