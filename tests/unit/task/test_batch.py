"""Many tasks of one step as one short value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec


def branch(path: tuple[int, ...], *, attempt: int = 0, turn: int = 0) -> TaskSpec:
    """A task of a foreach that reads the task before it in its branch, and the task that opened the branch."""
    inputs = (TaskInput("before", path, turn=turn), TaskInput("opener", path[:-1]))
    return TaskSpec("Demo", "r1", TaskName("train", path, turn), attempt, inputs)


indices = st.integers(0, 30)
paths = st.integers(1, 3).flatmap(
    lambda depth: st.sets(st.tuples(*[indices] * depth), min_size=1, max_size=60)  # type: ignore[arg-type]
)


@given(paths, st.integers(0, 3), st.integers(0, 2))
def test_a_batch_has_exactly_its_tasks_in_their_order(found: set[tuple[int, ...]], attempt: int, turn: int) -> None:
    tasks = [branch(path, attempt=attempt, turn=turn) for path in found]
    batch = TaskBatch.from_json(TaskBatch.of(tasks).to_json())
    ordered = sorted(tasks, key=lambda task: task.name.path)
    assert list(batch) == ordered
    assert [batch[position] for position in range(len(batch))] == ordered
    assert batch == TaskBatch.of(ordered)


@given(paths, st.integers(1, 9))
def test_the_shares_of_the_pods_are_the_batch(found: set[tuple[int, ...]], size: int) -> None:
    """Each task is in exactly one pod."""
    batch = TaskBatch.of([branch(path) for path in found])
    shares = [batch.share(number, size) for number in range(-(-len(batch) // size))]
    assert [task for share in shares for task in share] == list(batch)
    assert all(len(share) == size for share in shares[:-1])


@given(st.lists(paths, min_size=2, max_size=2, unique_by=frozenset))
def test_different_batches_have_different_ids(two: list[set[tuple[int, ...]]]) -> None:
    """The name of a Job is derived from them."""
    one, other = (TaskBatch.of([branch(path) for path in found]) for found in two)
    assert one.ids != other.ids


def test_a_thousand_branches_take_little_room_even_scattered() -> None:
    whole = TaskBatch.of([branch((index,)) for index in range(1000)])
    assert whole.ids == "0-999"
    assert len(whole.to_json()) < 400
    scattered = TaskBatch.of([branch((4, 7 * index)) for index in range(1000)])
    assert len(scattered.to_json()) < 6000


def test_one_task_is_written_as_itself() -> None:
    """The agent of a single task reads the same document."""
    task = branch((3, 1))
    assert TaskBatch.of([task]).to_json() == task.to_json()
    assert TaskBatch.of([task]).ids == "3.1"


@pytest.mark.parametrize(
    "other",
    [
        branch((1,), attempt=1),
        branch((1,), turn=1),
        branch((1, 0)),
        TaskSpec("Demo", "r1", TaskName("train", (1,)), inputs=(TaskInput("opener", (), 3),)),
        TaskSpec("Demo", "r1", TaskName("train", (1,)), inputs=(TaskInput("before", (7,)), TaskInput("opener", ()))),
        TaskSpec("Demo", "r1", TaskName("train", (1,)), inputs=branch((1,)).inputs, nodes=2),
        TaskSpec("Demo", "r1", TaskName("train", (1,)), inputs=branch((1,)).inputs, memory="8Gi"),
    ],
)
def test_tasks_that_are_not_alike_are_in_no_common_batch(other: TaskSpec) -> None:
    with pytest.raises(ValueError, match="can't be in one batch"):
        TaskBatch.of([branch((0,)), other])


@pytest.mark.parametrize("text", ["{}", "[]", json.dumps({"paths": 3}), "no JSON"])
def test_a_text_that_is_not_a_batch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        TaskBatch.from_json(text)
