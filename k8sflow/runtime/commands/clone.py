"""Copies into a run the results that it takes over from the run that it resumes."""

from __future__ import annotations

from k8sflow.flow.graph import Graph
from k8sflow.runtime.core.resume_plan import ResumePlan, plan
from k8sflow.runtime.session import Session
from k8sflow.storage.clones import is_complete, mark_complete, put_commits
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore


def clone(session: Session) -> None:
    """Writes the commits that the run takes over, unless all of them exist.

    The driver does so before it starts: where one dies in the middle, the next one does it again.

    Raises:
        RunError: The origin no longer exists.
        StorageError: It can't be read, or the store refuses.
    """
    if is_complete(session.run_store):
        return
    origin = RunStore(session.store, session.record.flow, str(session.record.origin_run_id))
    found = plan_from(origin, origin.read(), session.graph, session.record.origin_step)
    put_commits(session.run_store, (kept.clone(origin.pathspec) for kept in found.kept))
    mark_complete(session.run_store, ((kept.name.step, kept.name.id, kept.commit.end) for kept in found.kept))


def plan_from(origin: RunStore, record: RunRecord, graph: Graph, step: str | None) -> ResumePlan:
    """The plan for a run that resumes its origin.

    Args:
        origin: The run that is resumed.
        record: Its record.
        graph: The flow's current graph.
        step: The step from which on everything runs again; None for the tasks that have no result.
    """
    return plan(origin, record.graph, graph, lambda name: name.step == step)
