"""A follower shows a run as its driver would: from the records that its tasks write to the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from k8sflow.executors.base import Finished, Output, Started, TaskEvent
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.policy import Catch, RetryPolicy, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.progress.follow import RunFollower
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import Commit, ForeachItems, OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from tests.sources import foreach
from tests.support import load_flow, write_flow

WORK = TaskName("work", (0,))


class Heard:
    """The events that an observer got, in words."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def opened(self, step: str, width: int) -> None:
        self.words.append(f"{step} has {width} branches")

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        self.words += [f"{task.name} ready" for task in group]

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        self.words += [f"{task.name} done before" for task in tasks]

    def event(self, event: TaskEvent) -> None:
        match event:
            case Started(task):
                self.words.append(f"{task.name} attempt {task.attempt}")
            case Output(task, _, data):
                self.words.append(f"{task.name} {data.decode()}")
            case Finished(task, result):
                self.words.append(f"{task.name} {result.outcome.value}")

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        why = result.failure.summary if result.failure is not None else ""
        self.words.append(f"{task.name} again ({again.number}): {why}")

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        self.words.append(f"{task.name} caught")


class Followed:
    """A run that a test writes, and who follows it."""

    def __init__(self, graph: Graph, policy: StepPolicy) -> None:
        self.store = RunStore(MemoryStore(), "F", "r1")
        self.graph = graph
        self.policy = policy
        self.heard = Heard()
        self.follower: RunFollower | None = None

    def begins(self, attempt: int, name: TaskName = WORK, text: str = "") -> None:
        self.store.open_log(name.step, name.id, attempt, "stdout").write((text or f"says {attempt}").encode())

    def ends(self, attempt: int, outcome: Outcome, name: TaskName = WORK, *, is_final: bool = False) -> None:
        record = OutcomeRecord(outcome, 1.0, outcome.value, is_final=is_final)
        self.store.write_outcome(name.step, name.id, attempt, record)

    def commits(self, attempt: int, name: TaskName = WORK, origin: str | None = None) -> None:
        assert self.store.commit(name.step, name.id, Commit(attempt, ("join",), {}, origin=origin))

    def splits(self, width: int, max_parallel: int | None = None) -> None:
        """The start step's task has opened a foreach."""
        items = ForeachItems(width, (), max_parallel)
        assert self.store.commit("start", "0", Commit(0, ("work",), {}, foreach=items))

    def look(self) -> list[str]:
        """The events of looks that see all that was written."""
        self.heard.words.clear()
        if self.follower is None:
            self.follower = RunFollower(self.graph, self.store, self.heard, {"work": self.policy})
            self.follower.follow(lambda: True)
        else:
            self.follower._look()
            self.follower._look()
        return list(self.heard.words)


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    graph = compile_flow(load_flow(write_flow(tmp_path, foreach(items="[0, 1]")))).graph
    return Followed(graph, StepPolicy(RetryPolicy(2), catch=Catch("failed")))


def test_tasks_that_were_done_before_are_counted_only(followed: Followed) -> None:
    """Also where a task's outcome comes after its commit."""
    start = TaskName("start")
    followed.commits(0, start)
    assert followed.look() == ["start/0 done before"]
    followed.ends(0, Outcome.SUCCEEDED, start)
    followed.begins(0)
    assert followed.look() == ["work/0 ready", "work/0 attempt 0", "work/0 says 0"]


def test_the_width_of_a_foreach_is_shown_once_and_all_of_its_branches_count(followed: Followed) -> None:
    """Those that have not started are ready; those that were done before are not ready again."""
    followed.splits(3)
    followed.commits(0)
    assert followed.look() == ["start/0 done before", "work/0 done before"]
    followed.begins(0, TaskName("work", (2,)))
    assert followed.look() == [
        "work has 3 branches",
        "work/1 ready",
        "work/2 ready",
        "work/2 attempt 0",
        "work/2 says 0",
    ]
    followed.begins(0, TaskName("work", (1,)))
    assert followed.look() == ["work/1 attempt 0", "work/1 says 0"]


def test_the_branches_of_a_foreach_with_a_limit_are_ready_as_they_start(followed: Followed) -> None:
    followed.splits(3, max_parallel=1)
    followed.look()
    followed.begins(0)
    assert followed.look() == ["work has 3 branches", "work/0 ready", "work/0 attempt 0", "work/0 says 0"]


def test_tasks_that_are_cloned_meanwhile_count_as_done(followed: Followed) -> None:
    """As after ``resume --detach``; a task that has just committed, and has said nothing yet, is none of them."""
    assert followed.look() == []
    followed.commits(0, TaskName("start"), origin="F/r0")
    followed.commits(0)
    assert followed.look() == ["start/0 done before"]
    followed.ends(0, Outcome.SUCCEEDED)
    assert followed.look() == ["work/0 ready", "work/0 attempt 0", "work/0 succeeded"]


def test_an_execution_that_died_with_its_driver_is_reported_as_such(followed: Followed) -> None:
    """Also where the one after it has committed by then: only that has succeeded."""
    followed.begins(0)
    assert followed.look()[0] == "work/0 ready"
    followed.begins(1)
    followed.commits(1)
    followed.ends(1, Outcome.SUCCEEDED)
    assert followed.look() == [
        "work/0 node_lost",
        "work/0 again (None): attempt 0 recorded no outcome; it was lost with its driver or node",
        "work/0 attempt 1",
        "work/0 says 1",
        "work/0 succeeded",
    ]


def test_a_commit_without_an_outcome_is_a_success_of_the_execution_that_made_it(followed: Followed) -> None:
    followed.begins(0)
    followed.look()
    followed.commits(0)
    assert followed.look() == ["work/0 succeeded"]


def test_a_failure_is_followed_by_what_its_driver_makes_of_it(followed: Followed) -> None:
    """Retries with their number, those before the follower came among them, and in the end @catch."""
    followed.begins(0)
    followed.ends(0, Outcome.USER_ERROR)
    assert followed.look() == []
    followed.begins(1)
    followed.ends(1, Outcome.USER_ERROR)
    assert followed.look()[-2:] == ["work/0 user_error", "work/0 again (2): user_error"]
    followed.begins(2)
    followed.ends(2, Outcome.USER_ERROR)
    assert followed.look()[-2:] == ["work/0 user_error", "work/0 caught"]


def test_a_failure_that_would_repeat_is_followed_by_no_rerun(followed: Followed) -> None:
    """A Job that is refused for good: the infrastructure is to blame, and its driver doesn't try again."""
    followed.begins(0)
    followed.look()
    followed.ends(0, Outcome.NEVER_STARTED, is_final=True)
    assert followed.look() == ["work/0 never_started"]


def test_a_task_whose_first_execution_was_over_before_counts_once(followed: Followed) -> None:
    """When it runs again, that is the first that a follower sees of it."""
    followed.begins(0)
    followed.ends(0, Outcome.USER_ERROR)
    assert followed.look() == []
    followed.begins(1)
    assert followed.look() == ["work/0 ready", "work/0 attempt 1", "work/0 says 1"]
    followed.ends(1, Outcome.USER_ERROR)
    followed.begins(2)
    assert "work/0 ready" not in followed.look()


def test_a_task_that_another_driver_runs_again_has_not_failed(followed: Followed) -> None:
    """A task that was cancelled ends a driver's run; who attaches runs it again."""
    followed.begins(0)
    followed.look()
    followed.ends(0, Outcome.CANCELLED)
    assert followed.look() == ["work/0 cancelled"]
    followed.begins(1)
    assert followed.look()[:2] == ["work/0 again (None): cancelled", "work/0 attempt 1"]
