"""The results of tasks in the run's store."""

from __future__ import annotations

import time
from collections.abc import Sequence

from k8sflow.errors import AccessError, StorageError
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.clones import read_commits
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import Failure, TaskResult, Transition, failed
from k8sflow.task.spec import TaskName, TaskSpec

_FEW = 5  # commits are read one by one


def committed_result(run_store: RunStore, spec: TaskSpec) -> TaskResult | None:
    """The result of a task that the store has a commit of; else None.

    It doesn't matter which execution wrote it, unless the task has to run together with others: they count as one.
    """
    commit = run_store.read_commit(spec.name.step, spec.name.id)
    if commit is None or not _counts(commit.attempt, spec):
        return None
    width = commit.foreach.width if commit.foreach is not None else None
    limit = commit.foreach.max_parallel if commit.foreach is not None else None
    return TaskResult(Outcome.SUCCEEDED, Transition(commit.steps, width, limit))


def committed_results(run_store: RunStore, specs: Sequence[TaskSpec]) -> dict[TaskName, TaskResult]:
    """The results of those tasks of one step that the store has commits of.

    Of many tasks, one listing finds those; only their commits are read.
    """
    if len(specs) > _FEW:
        committed = run_store.committed(specs[0].name.step)
        specs = [spec for spec in specs if spec.name.id in committed]
    found = zip(specs, read_commits(run_store, [(spec.name.step, spec.name.id) for spec in specs]), strict=True)
    return {
        spec.name: TaskResult(Outcome.SUCCEEDED, Transition(commit.steps, commit.width, commit.max_parallel))
        for spec, commit in found
        if commit is not None and _counts(commit.attempt, spec)
    }


def _counts(attempt: int, spec: TaskSpec) -> bool:
    return spec.nodes == 1 or attempt == spec.attempt


def write_outcome(run_store: RunStore, spec: TaskSpec, result: TaskResult) -> None:
    """Writes how an execution ended; a store that refuses it must not hide the result itself."""
    found = result.failure or Failure("")
    record = OutcomeRecord(
        result.outcome,
        time.time(),
        found.summary,
        found.detail,
        found.resolution,
        found.error_type,
        found.is_final,
        spec.memory,
    )
    try:
        run_store.write_outcome(spec.name.step, spec.name.id, spec.attempt, record)
    except (StorageError, AccessError):
        # A success is in the commit, and a failure reaches the driver with the result.
        return


def withdraw_outcome(run_store: RunStore, spec: TaskSpec, instead: TaskResult) -> None:
    """Deletes the outcome that an execution wrote, or replaces it where nothing may be deleted in the store."""
    try:
        run_store.withdraw_outcome(spec.name.step, spec.name.id, spec.attempt)
    except (StorageError, AccessError):
        write_outcome(run_store, spec, instead)


def recorded_result(record: OutcomeRecord) -> TaskResult:
    """The result of an execution, from the record of its outcome."""
    outcome = record.outcome
    if not outcome.is_failure:
        return TaskResult(outcome)
    return failed(
        outcome,
        record.summary,
        record.detail,
        record.resolution,
        record.error_type,
        is_final=record.is_final,
    )
