"""The division of waiting tasks into Jobs."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.executors.backlog import GATHER_SECONDS, MOST_INDICES, Backlog
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec


def branches(count: int, *, attempt: int = 0, step: str = "work") -> list[TaskSpec]:
    inputs = (TaskInput("start", ()),)
    return [TaskSpec("Demo", "r1", TaskName(step, (index,)), attempt, inputs) for index in range(count)]


def backlog(indexed_from: int = 5, per_pod: Callable[[str], int] = lambda _: 1) -> Backlog:
    return Backlog(lambda _: indexed_from, per_pod)


def taken(found: Backlog, now: float = 100.0) -> list[TaskBatch]:
    batches = []
    while (batch := found.take(now)) is not None:
        batches.append(batch)
    return batches


def test_a_narrow_foreach_is_single_jobs_and_a_wide_one_is_one() -> None:
    waiting = backlog()
    waiting.add(branches(4), 0.0)
    assert [batch.ids for batch in taken(waiting)] == ["0", "1", "2", "3"]
    waiting.add(branches(5), 0.0)
    assert [batch.ids for batch in taken(waiting)] == ["0-4"]


def test_an_indexed_job_has_a_thousand_indices_at_most() -> None:
    waiting = backlog()
    waiting.add(branches(2 * MOST_INDICES + 2), 0.0)
    assert [batch.ids for batch in taken(waiting)] == ["0-999", "1000-1999", "2000", "2001"]


def test_branches_that_share_pods_count_by_their_pods() -> None:
    waiting = backlog(per_pod=lambda _: 4)
    waiting.add(branches(10), 0.0)
    assert [batch.ids for batch in taken(waiting)] == ["0-3", "4-7", "8-9"]
    waiting.add(branches(17), 0.0)
    assert [batch.ids for batch in taken(waiting)] == ["0-16"]


def test_branches_that_run_again_are_gathered_for_a_moment() -> None:
    """Each is submitted by itself, as its pause ends."""
    waiting = backlog()
    for number, task in enumerate(branches(6, attempt=1)):
        waiting.add([task], number * 0.01)
    assert waiting.take(0.1) is None
    assert waiting.next_due() == GATHER_SECONDS
    assert [batch.ids for batch in taken(waiting, GATHER_SECONDS)] == ["0-5"]
    assert waiting.next_due() is None


def test_what_is_not_due_holds_nothing_up() -> None:
    waiting = backlog()
    waiting.add(branches(1, attempt=1), 0.0)
    waiting.add(branches(1, step="other"), 0.0)
    found = waiting.take(0.0)
    assert found is not None
    assert found.template.name.step == "other"


def test_executions_of_different_attempts_are_in_different_jobs() -> None:
    waiting = backlog(indexed_from=2)
    waiting.add([*branches(2, attempt=1), *branches(2, attempt=2)], 0.0)
    assert [(batch.ids, batch.template.attempt) for batch in taken(waiting)] == [("0-1", 1), ("0-1", 2)]


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 2)), max_size=12), st.integers(2, 9), st.integers(1, 5))
def test_each_task_is_in_exactly_one_job(groups: list[tuple[int, int]], indexed_from: int, per_pod: int) -> None:
    waiting, submitted = backlog(indexed_from, lambda _: per_pod), []
    for number, (count, attempt) in enumerate(groups):
        tasks = branches(count, attempt=attempt, step=f"s{number % 3}")
        tasks = [task for task in tasks if task not in submitted]
        submitted += tasks
        if tasks:
            waiting.add(tasks, float(number))
    batches = taken(waiting)
    assert sorted((task for batch in batches for task in batch), key=str) == sorted(submitted, key=str)
    assert all(len(batch) <= per_pod or len(batch) > per_pod * (indexed_from - 1) for batch in batches)
    assert len(waiting) == 0


def test_what_waits_can_be_taken_back() -> None:
    waiting = backlog()
    waiting.add(branches(7), 0.0)
    assert waiting.clear() == branches(7)
    assert waiting.take(1.0) is None
