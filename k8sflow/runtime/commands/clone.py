"""Takes over into a run what it keeps of the one that it resumes."""

from __future__ import annotations

from k8sflow.flow.graph import Graph
from k8sflow.runtime.core.resume_plan import Plan, plan
from k8sflow.runtime.session import ActiveRun
from k8sflow.storage.clones import is_complete, mark_complete, put_commits
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore


def clone(active: ActiveRun) -> None:
    """Writes the commits that the run keeps, unless they are all there.

    The driver does so before it begins: one that dies in the middle leaves a run whose next driver does it again.

    Raises:
        RunError: The origin is not there any more.
        StorageError: It can't be read, or the store refuses.
    """
    if is_complete(active.run_store):
        return
    origin = RunStore(active.store, active.record.flow, str(active.record.origin_run_id))
    found = plan_from(origin, origin.read(), active.graph, active.record.origin_step)
    put_commits(
        active.run_store,
        ((kept.name.step, kept.name.id, kept.commit.clone(origin.pathspec, kept.steps)) for kept in found.kept),
    )
    mark_complete(active.run_store)


def plan_from(origin: RunStore, record: RunRecord, graph: Graph, step: str | None) -> Plan:
    """What a run takes over from its origin, and what it begins with.

    Args:
        origin: The run that is resumed.
        record: Its record.
        graph: The flow's graph as it is now.
        step: The step from which on everything runs again; None for what has no result.
    """
    return plan(origin, Graph.from_document(record.flow, record.graph), graph, lambda name: name.step == step)
