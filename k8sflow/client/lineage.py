"""The tasks before and after a task, from the graph and the next steps in the commits."""

from __future__ import annotations

from collections.abc import Iterator

from k8sflow.flow.graph import Graph, Node
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskName


def parents(graph: Graph, run_store: RunStore, step: str, task: str) -> Iterator[TaskName]:
    """The tasks whose transitions led to this one; for a join, in the order of its inputs. Reads on demand."""
    name = _named(graph, step, task)
    node = graph[step]
    if name.turn:
        yield TaskName(step, name.path, name.turn - 1)
        return
    found = [
        other
        for parent in node.parents
        for other in _at(graph, run_store, graph[parent], _path_before(node, graph[parent], name))
    ]
    for other in sorted(found, key=lambda other: other.path) if node.is_join else found:
        commit = run_store.read_commit(other.step, other.id)
        if commit is not None and step in commit.steps:
            yield other


def children(graph: Graph, run_store: RunStore, step: str, task: str) -> Iterator[TaskName]:
    """The started tasks to which this one's transition led."""
    name = _named(graph, step, task)
    node = graph[step]
    commit = run_store.read_commit(step, task)
    if commit is None:
        return
    width = commit.foreach.width if commit.foreach is not None else 0
    wanted: list[TaskName] = []
    for target in commit.steps:
        if target == step:
            wanted.append(TaskName(step, name.path, name.turn + 1))
        elif node.is_wide and width:
            wanted += [TaskName(target, (*name.path, index)) for index in range(width)]
        else:
            after = graph.join_of(step).name if node.is_wide else target
            wanted.append(TaskName(after, name.path[: graph.depth(after)]))
    started = {following: set(run_store.tasks(following)) for following in {other.step for other in wanted}}
    yield from (other for other in wanted if other.id in started[other.step])


def indices(graph: Graph, step: str, task: str) -> tuple[int, ...]:
    """The indices of the foreach branches around a task, the outermost first."""
    return _named(graph, step, task).path


def _named(graph: Graph, step: str, task: str) -> TaskName:
    path, _, turn = task.partition("-")
    found = tuple(int(index) for index in path.split(".")) if graph.depth(step) else ()
    return TaskName(step, found, int(turn or 0))


def _path_before(node: Node, parent: Node, name: TaskName) -> tuple[int, ...]:
    """The foreach indices of a task's parent, as far as they follow from the task's own."""
    return name.path[:-1] if parent.is_wide and not node.is_join else name.path


def _at(graph: Graph, run_store: RunStore, node: Node, path: tuple[int, ...]) -> Iterator[TaskName]:
    """The tasks of a step at a path and below it, in all their turns."""
    for task in run_store.tasks(node.name):
        name = _named(graph, node.name, task)
        if name.path[: len(path)] == path:
            yield name
