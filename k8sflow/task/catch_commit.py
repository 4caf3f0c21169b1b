"""The commit of a task that has failed for good, under ``@catch``: made without the flow's code."""

from __future__ import annotations

import time

from k8sflow.errors import CaughtError, TimeoutException
from k8sflow.flow.decorators.policy import Catch
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.checkpoints import discard
from k8sflow.storage.layers import compose
from k8sflow.storage.records import Commit, KeptRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.failure import name_of
from k8sflow.task.inherited import inherited_by
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result

_TYPES = {Outcome.OUT_OF_MEMORY: MemoryError, Outcome.TIMED_OUT: TimeoutException}


def commit_caught(run_store: RunStore, graph: Graph, spec: TaskSpec, failure: TaskResult, catch: Catch) -> TaskResult:
    """Commits what the failed execution had set before it failed, and the exception.

    Where its process was killed, it could keep nothing: then it is what the task was given.

    Raises:
        ArtifactError: A task before it has no result.
        StorageError: The store refuses.
    """
    now = time.time()
    inherited = inherited_by(graph, run_store, spec)
    kept = run_store.read_kept(spec.name.step, spec.name.id, spec.attempt)
    if kept is None:
        given = compose(inherited.artifacts(), inherited.table.layers)
        kept = KeptRecord(given.own, now, given.layers, given.without)
    artifacts = dict(kept.artifacts)
    if catch.var is not None:
        store = ArtifactStore(run_store.store, run_store.flow)
        artifacts[catch.var] = store.save(caught(failure), catch.var)
    steps = graph[spec.name.step].next
    commit = Commit(
        spec.attempt,
        steps,
        artifacts,
        inherited.stack,
        started=kept.started,
        finished=now,
        layers=kept.layers,
        without=kept.without,
        is_caught=True,
    )
    is_first = run_store.commit(spec.name.step, spec.name.id, commit, is_one_of_several=spec.nodes > 1)
    discard(run_store, spec.name.step, spec.name.id)
    if not is_first:
        return committed_result(run_store, spec) or failure
    return TaskResult(Outcome.SUCCEEDED, Transition(steps))


def caught(failure: TaskResult) -> CaughtError:
    """The exception as a later step finds it."""
    found = failure.failure
    if found is None:
        return CaughtError(name_of(RuntimeError), failure.outcome.value, "", failure.outcome.value)
    kind = found.error_type or name_of(_TYPES.get(failure.outcome, RuntimeError))
    short = kind.rpartition(".")[2]
    text = found.summary.removeprefix(f"{short}: ") if found.summary != short else ""
    stacktrace = found.detail
    if stacktrace and text not in stacktrace:  # k8sflow's own errors have their parts there, not their text
        stacktrace = f"{stacktrace}\n{short}: {text}"
    return CaughtError(kind, text, stacktrace, failure.outcome.value)
