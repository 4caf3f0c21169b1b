"""The commit of a task that has failed for good, under ``@catch``: made without the flow's code."""

from __future__ import annotations

import time

from k8sflow.flow.attempts import Catch
from k8sflow.flow.caught import CaughtError
from k8sflow.flow.graph import Graph
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.layers import compose
from k8sflow.storage.records import Commit
from k8sflow.storage.run_store import RunStore
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.runner import committed_result
from k8sflow.task.spec import TaskSpec
from k8sflow.task.surroundings import surroundings

_TYPES = {Outcome.OUT_OF_MEMORY: "MemoryError", Outcome.TIMED_OUT: "TimeoutError"}


def commit_caught(run_store: RunStore, graph: Graph, spec: TaskSpec, failure: TaskResult, catch: Catch) -> TaskResult:
    """Commits what the task was given, and the exception; of what the failed execution had set there is nothing.

    Raises:
        ArtifactError: A task before it has no result.
        StorageError: The store refuses.
    """
    around = surroundings(graph, run_store, spec)
    artifacts = around.inherited()
    if catch.var is not None:
        store = ArtifactStore(run_store.store, run_store.flow)
        artifacts[catch.var] = store.save(caught(failure), catch.var)
    now = time.time()
    steps = graph[spec.name.step].next
    left = compose(artifacts, around.table.layers)
    commit = Commit(
        spec.attempt, steps, left.own, around.stack, started=now, finished=now, layers=left.layers, without=left.without
    )
    if not run_store.commit(spec.name.step, spec.name.id, commit):
        return committed_result(run_store, spec) or failure
    return TaskResult(Outcome.SUCCEEDED, Transition(steps))


def caught(failure: TaskResult) -> CaughtError:
    """The exception as a later step finds it."""
    found = failure.diagnosis
    if found is None:
        return CaughtError("RuntimeError", failure.outcome.value, "", failure.outcome.value)
    kind = found.error_type or _TYPES.get(failure.outcome, "RuntimeError")
    text = found.summary.removeprefix(f"{kind}: ") if found.summary != kind else ""
    return CaughtError(kind, text, found.detail, failure.outcome.value)
