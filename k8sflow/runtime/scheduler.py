"""Which tasks are ready: a state machine that knows the graph and the transitions seen so far, and nothing else.

A finished task costs the same work whatever the width of the foreach around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from k8sflow.flow.graph import END, START, Graph, Node
from k8sflow.task.result import Transition
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec


@dataclass(frozen=True)
class TaskGroup(Sequence[TaskSpec]):
    """Tasks of one step that became ready together; made one by one when they are looked at.

    Args:
        flow: The flow's name.
        run: The run's id.
        step: The step.
        path: The foreach indices around the group.
        width: How many branches the group is; None for a single task at ``path`` itself.
        inputs: What each of the tasks reads.
    """

    flow: str
    run: str
    step: str
    path: tuple[int, ...]
    width: int | None
    inputs: tuple[TaskInput, ...]

    def __len__(self) -> int:
        return 1 if self.width is None else self.width

    @overload
    def __getitem__(self, index: int) -> TaskSpec: ...
    @overload
    def __getitem__(self, index: slice) -> list[TaskSpec]: ...
    def __getitem__(self, index: int | slice) -> TaskSpec | list[TaskSpec]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        path = self.path if self.width is None else (*self.path, position)
        return TaskSpec(self.flow, self.run, TaskName(self.step, path), 0, self.inputs)


class Scheduler:
    """The run's frontier.

    Args:
        graph: The checked graph.
        run: The run's id.
    """

    def __init__(self, graph: Graph, run: str) -> None:
        self._graph = graph
        self._run = run
        self._joins = {str(node.joins): node for node in graph.nodes.values() if node.joins}
        self._widths: dict[TaskName, int] = {}
        self._arrived: dict[TaskName, int] = {}
        self.is_done = False

    def begin(self) -> TaskGroup:
        """The start step's task."""
        return self._group(START, (), None, ())

    def finished(self, name: TaskName, transition: Transition) -> list[TaskGroup]:
        """What becomes ready by the end of a task. Each task may be told once."""
        node = self._graph[name.step]
        if node.name == END:
            self.is_done = True
            return []
        if node.foreach is not None:
            return [self._open_foreach(node, name, transition)]
        groups = []
        for target in transition.steps:
            if self._graph[target].is_join:
                groups += self._arrive(node, self._graph[target], name.path)
            else:
                groups.append(self._group(target, name.path, None, (TaskInput(node.name, name.path),)))
        return groups

    def _open_foreach(self, node: Node, name: TaskName, transition: Transition) -> TaskGroup:
        width = transition.width or 0
        if width == 0:
            join = self._joins[node.name]
            return self._group(join.name, name.path, None, (TaskInput(join.parents[0], name.path, 0),))
        self._widths[name] = width
        return self._group(node.next[0], name.path, width, (TaskInput(node.name, name.path),))

    def _arrive(self, node: Node, join: Node, path: tuple[int, ...]) -> list[TaskGroup]:
        """Counts a branch that reached its join; the last one opens it."""
        split = self._graph[str(join.joins)]
        around = path[:-1] if split.foreach is not None else path
        key = TaskName(join.name, around)
        needed = self._widths[TaskName(split.name, around)] if split.foreach is not None else len(split.next)
        arrived = self._arrived.get(key, 0) + 1
        if arrived < needed:
            self._arrived[key] = arrived
            return []
        self._arrived.pop(key, None)
        if split.foreach is not None:
            del self._widths[TaskName(split.name, around)]
            return [self._group(join.name, around, None, (TaskInput(node.name, around, needed),))]
        inputs = tuple(TaskInput(parent, around) for parent in join.parents)
        return [self._group(join.name, around, None, inputs)]

    def _group(self, step: str, path: tuple[int, ...], width: int | None, inputs: tuple[TaskInput, ...]) -> TaskGroup:
        return TaskGroup(self._graph.flow, self._run, step, path, width, inputs)
