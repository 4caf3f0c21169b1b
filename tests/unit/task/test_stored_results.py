"""Results that the store has: which of them count."""

from __future__ import annotations

import pytest

from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import Commit
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import committed_result, committed_results


def specs(count: int, *, nodes: int, attempt: int) -> list[TaskSpec]:
    return [TaskSpec("F", "r", TaskName("work", (n,)), attempt, nodes=nodes) for n in range(count)]


@pytest.mark.parametrize("count", [3, 12])  # read one by one, and found by a listing
def test_a_result_of_an_earlier_execution_counts_only_for_a_task_by_itself(count: int) -> None:
    """Tasks that run together are retried as one."""
    run_store = RunStore(MemoryStore(), "F", "r")
    run_store.commit("work", "0", Commit(0, ("join",), {}))
    run_store.commit("work", "1", Commit(1, ("join",), {}))
    alone = specs(count, nodes=1, attempt=1)
    assert set(committed_results(run_store, alone)) == {alone[0].name, alone[1].name}
    assert committed_result(run_store, alone[0]) is not None
    together = specs(count, nodes=count, attempt=1)
    assert set(committed_results(run_store, together)) == {together[1].name}
    assert committed_result(run_store, together[0]) is None


def test_only_tasks_that_run_together_replace_a_result() -> None:
    """And only by one of a later execution."""
    run_store = RunStore(MemoryStore(), "F", "r")
    assert run_store.commit("work", "0", Commit(1, ("join",), {}), is_one_of_several=True)
    assert not run_store.commit("work", "0", Commit(2, ("other",), {}))
    assert not run_store.commit("work", "0", Commit(0, ("other",), {}), is_one_of_several=True)
    assert run_store.commit("work", "0", Commit(2, ("join",), {}), is_one_of_several=True)
    found = run_store.read_commit("work", "0")
    assert found is not None
    assert found.attempt == 2
