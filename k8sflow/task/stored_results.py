"""The results of tasks in the run's store."""

from __future__ import annotations

import time

from k8sflow.errors import StorageError
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import Failure, TaskResult, Transition, failed
from k8sflow.task.spec import TaskSpec


def committed_result(run_store: RunStore, spec: TaskSpec) -> TaskResult | None:
    """The result of a task that the store has a commit of, no matter which execution wrote it; else None."""
    commit = run_store.read_commit(spec.name.step, spec.name.id)
    if commit is None:
        return None
    width = commit.foreach.width if commit.foreach is not None else None
    limit = commit.foreach.max_parallel if commit.foreach is not None else None
    return TaskResult(Outcome.SUCCEEDED, Transition(commit.steps, width, limit))


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
    except StorageError:
        # A success is in the commit, and a failure reaches the driver with the result.
        return


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
