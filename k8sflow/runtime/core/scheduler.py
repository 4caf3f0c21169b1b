"""Which tasks are ready: a state machine that knows the graph and the transitions seen so far, and nothing else.

A finished task costs the same work whatever the width of the foreach around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from k8sflow.flow.graph import Graph, Node
from k8sflow.task.result import Transition
from k8sflow.task.spec import TaskInput, TaskName, TaskSequence, TaskSpec


@dataclass(frozen=True)
class TaskGroup(TaskSequence):
    """Tasks of one step that became ready together.

    Args:
        flow: The flow's name.
        run: The run's id.
        step: The step.
        path: The foreach indices around the group.
        branches: Which branches of a foreach the group is; None for a single task at ``path`` itself.
        inputs: What each of the tasks reads.
        turn: In a step that comes back to itself, how often it has done so before.
        nodes: How many of the tasks have to run at the same time.
        opens: How many branches the foreach has that the group opens; 0 for a group that opens none.
    """

    flow: str
    run: str
    step: str
    path: tuple[int, ...]
    branches: range | None
    inputs: tuple[TaskInput, ...]
    turn: int = 0
    nodes: int = 1
    opens: int = 0

    def __len__(self) -> int:
        return 1 if self.branches is None else len(self.branches)

    def task_at(self, position: int) -> TaskSpec:
        path = self.path if self.branches is None else (*self.path, self.branches[position])
        return TaskSpec(self.flow, self.run, TaskName(self.step, path, self.turn), 0, self.inputs, self.nodes)


@dataclass
class _Foreach:
    """A foreach whose branches are under way.

    Args:
        width: How many branches there are.
        opened: How many of them have been started.
        arrived: How many of them have reached the join.
    """

    width: int
    opened: int
    arrived: int = 0


class Scheduler:
    """The run's frontier.

    Args:
        graph: The checked graph.
        run: The run's id.
    """

    def __init__(self, graph: Graph, run: str) -> None:
        self._graph = graph
        self._run = run
        self._start, self._end = graph.start, graph.end
        self._joins = {str(node.joins): node for node in graph.nodes.values() if node.joins}
        # By the task that opened the branches: these, and in which tasks the static ones have ended.
        self._foreaches: dict[TaskName, _Foreach] = {}
        self._splits: dict[TaskName, dict[int, TaskName]] = {}
        self.is_done = False

    def begin(self) -> TaskGroup:
        """The start step's task."""
        return self._group(self._start, (), ())

    def finished(self, name: TaskName, transition: Transition) -> list[TaskGroup]:
        """The groups that become ready by the end of a task. Each task may be passed once."""
        node = self._graph[name.step]
        if node.name == self._end:
            self.is_done = True
            return []
        if node.is_wide:
            return [self._open_foreach(node, name, transition)]
        groups = []
        for target in transition.steps:
            if self._graph[target].is_join:
                groups += self._arrive(node, self._graph[target], name)
            else:
                turn = name.turn + 1 if target == node.name else 0
                groups.append(self._group(target, name.path, (TaskInput(name.step, name.path, turn=name.turn),), turn))
        return groups

    def _open_foreach(self, node: Node, name: TaskName, transition: Transition) -> TaskGroup:
        width = transition.width or 0
        if width == 0:
            join = self._joins[node.name]
            return self._group(join.name, name.path, (self._ends(node, join, name.path, 0),))
        opened = min(width, transition.max_parallel or width)
        self._foreaches[name] = _Foreach(width, opened)
        return replace(self._branches(node, name.path, range(opened), width if node.num_parallel else 1), opens=width)

    def _branches(self, split: Node, path: tuple[int, ...], branches: range, nodes: int = 1) -> TaskGroup:
        inputs = (TaskInput(split.name, path),)
        return TaskGroup(self._graph.flow, self._run, split.next[0], path, branches, inputs, nodes=nodes)

    def _arrive(self, node: Node, join: Node, name: TaskName) -> list[TaskGroup]:
        """Counts a branch that reached its join: the last one opens it, another makes room for the next one."""
        split = self._graph[str(join.joins)]
        if split.is_wide:
            return self._arrive_from_foreach(split, join, name.path[:-1])
        key = TaskName(split.name, name.path)
        branch = split.next.index(join.name) if node is split else node.branches[-1]
        ends = self._splits.setdefault(key, {})
        ends[branch] = name
        if len(ends) < len(split.next):
            return []
        del self._splits[key]
        inputs = tuple(TaskInput(end.step, end.path, turn=end.turn) for _, end in sorted(ends.items()))
        return [self._group(join.name, name.path, inputs)]

    def _arrive_from_foreach(self, split: Node, join: Node, path: tuple[int, ...]) -> list[TaskGroup]:
        key = TaskName(split.name, path)
        foreach = self._foreaches[key]
        foreach.arrived += 1
        if foreach.arrived == foreach.width:
            del self._foreaches[key]
            return [self._group(join.name, path, (self._ends(split, join, path, foreach.width),))]
        if foreach.opened == foreach.width:
            return []
        foreach.opened += 1
        return [self._branches(split, path, range(foreach.opened - 1, foreach.opened))]

    def _ends(self, split: Node, join: Node, path: tuple[int, ...], width: int) -> TaskInput:
        """The last tasks of a foreach's branches: of one step, or to be found out by the commits of each branch."""
        last = self._graph[join.parents[0]]
        if len(join.parents) == 1 and not last.is_loop:
            return TaskInput(last.name, path, width)
        return TaskInput(split.next[0], path, width, until=join.name)

    def _group(self, step: str, path: tuple[int, ...], inputs: tuple[TaskInput, ...], turn: int = 0) -> TaskGroup:
        return TaskGroup(self._graph.flow, self._run, step, path, None, inputs, turn)
