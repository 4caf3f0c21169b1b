"""The artifacts that a task inherits from the step before it, and the foreach branches around it."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

from k8sflow.errors import ArtifactError
from k8sflow.flow.graph import Graph
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.records import Commit, ForeachFrame
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.tables import Table, Tables
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec


@dataclass(frozen=True)
class Inherited:
    """The artifacts and foreach branches that a task starts with.

    Args:
        table: The artifacts after the task before it; for a join, after the split.
        stack: The foreach branches around it, the outermost first.
        is_join: Whether it joins branches, and so inherits nothing by itself.
    """

    table: Table = field(default_factory=Table)
    stack: tuple[ForeachFrame, ...] = ()
    is_join: bool = False

    def artifacts(self) -> dict[str, ArtifactRef]:
        """The artifacts that the task inherits, by name."""
        return {} if self.is_join else self.table.refs()


def inherited_by(graph: Graph, run_store: RunStore, spec: TaskSpec) -> Inherited:
    """Reads the artifacts and foreach branches that a task starts with.

    Raises:
        ArtifactError: A task before it has no result.
    """
    node = graph[spec.name.step]
    if node.is_join:
        # A join is inside of the same branches as its split. It may have no inputs at all.
        name, split = _read(run_store, TaskInput(str(node.joins), spec.name.path))
        return Inherited(Tables(run_store).table(name, split), split.stack, is_join=True)
    if not spec.inputs:
        return Inherited()
    name, parent = _read(run_store, spec.inputs[0])
    stack = parent.stack if parent.foreach is None else (*parent.stack, _frame(spec, parent))
    return Inherited(Tables(run_store).table(name, parent), stack)


def _read(run_store: RunStore, parent: TaskInput) -> tuple[str, Commit]:
    name = parent[0]
    commit = run_store.read_commit(name.step, name.id, is_written=True)
    if commit is None:
        raise ArtifactError(
            f"the task {name} has no result in {run_store.store.url}.", cause="It was removed since it finished."
        )
    return str(name), commit


def _frame(spec: TaskSpec, parent: Commit) -> ForeachFrame:
    """The frame of this branch in the foreach that its parent opened."""
    assert parent.foreach is not None
    index = spec.name.path[-1]
    position = bisect.bisect_right([first for first, _ in parent.foreach.chunks], index) - 1
    first, chunk = parent.foreach.chunks[position]
    return ForeachFrame(spec.inputs[0].step, index, parent.foreach.width, chunk, index - first)


def end_of_branch(
    graph: Graph, name: TaskName, commit: Commit, join: str, read: Callable[[TaskName], Commit]
) -> tuple[TaskName, Commit]:
    """The task with which a branch ended, and its commit, found from its first one by the transitions.

    Args:
        graph: The flow's graph.
        name: The first task of the branch.
        commit: Its commit.
        join: The step that joins the branches.
        read: Reads the commit of a task.
    """
    while join not in commit.steps:
        if graph[name.step].is_split:
            name = TaskName(graph.join_of(name.step).name, name.path)
        elif commit.steps == (name.step,):
            name = TaskName(name.step, name.path, name.turn + 1)
        else:
            name = TaskName(commit.steps[0], name.path)
        commit = read(name)
    return name, commit
