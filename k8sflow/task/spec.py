"""Which task to run: the value that a driver hands to a process or a pod."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import overload

# The step of the calls of exit hooks; no step can have this name, since no method can.
EXIT_HOOK_STEP = "exit-hook"


@dataclass(frozen=True, order=True)
class TaskName:
    """A task's position in the graph (invariant I2).

    Args:
        step: Its step.
        path: The indices of the foreach branches around it.
        turn: In a step that comes back to itself, how often it has done so before.
    """

    step: str
    path: tuple[int, ...] = ()
    turn: int = 0

    @property
    def id(self) -> str:
        """The name within its step: ``3.1``, ``3.1-2`` when it has come back twice; ``0`` outside of any foreach."""
        indices = ".".join(map(str, self.path)) or "0"
        return f"{indices}-{self.turn}" if self.turn else indices

    @staticmethod
    def from_id(step: str, task: str, depth: int) -> TaskName:
        """The name of a task by its id, and by how many foreach branches are around its step.

        Raises:
            ValueError: No task of such a step has this id.
        """
        indices, _, turn = task.partition("-")
        path = tuple(map(int, indices.split("."))) if depth else ()
        name = TaskName(step, path, int(turn) if turn else 0)
        if len(path) != depth or name.id != task:
            raise ValueError(f"{step} has no task {task!r}")
        return name

    def __str__(self) -> str:
        return f"{self.step}/{self.id}"


@dataclass(frozen=True)
class TaskInput:
    """A range of parent tasks: ``width`` branches below ``path`` when width is given, else the one task at ``path``.

    Args:
        step: The step of all of them; with ``until``, the step that each branch begins with.
        path: The foreach indices around them.
        width: How many branches there are.
        turn: For one task, which turn of its step.
        until: The join in which the branches end, where a switch decided in which step each of them did so. Their
            last tasks are found by the commits; a list of them would make the spec as long as the foreach is wide.
    """

    step: str
    path: tuple[int, ...]
    width: int | None = None
    turn: int = 0
    until: str = ""

    def __len__(self) -> int:
        return 1 if self.width is None else self.width

    def __getitem__(self, index: int) -> TaskName:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return TaskName(self.step, self.path if self.width is None else (*self.path, index), self.turn)


@dataclass(frozen=True)
class TaskSpec:
    """One execution of one task.

    Args:
        flow: The flow's class name.
        run: The run's id.
        name: The task's position in the graph.
        attempt: Which execution of the task this is, from 0.
        inputs: The tasks whose results it reads, in the order in which the join sees them.
        nodes: How many tasks, this one among them, have to run at the same time; 1 for a task by itself.
        memory: The memory that it requests, where earlier executions ran out of memory; empty for that of its step.
    """

    flow: str
    run: str
    name: TaskName
    attempt: int = 0
    inputs: tuple[TaskInput, ...] = ()
    nodes: int = 1
    memory: str = ""

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task``, as the client and the command line name it."""
        return f"{self.flow}/{self.run}/{self.name}"

    @property
    def first(self) -> TaskName:
        """The first of the tasks that have to run at the same time; its own name for a task by itself."""
        return self.name if self.nodes == 1 else TaskName(self.name.step, (*self.name.path[:-1], 0))

    def to_json(self) -> str:
        """The spec as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> TaskSpec:
        """The spec that ``to_json`` wrote."""
        document = json.loads(text)
        return TaskSpec(
            flow=document["flow"],
            run=document["run"],
            name=TaskName(**{**document["name"], "path": tuple(document["name"]["path"])}),
            attempt=document["attempt"],
            inputs=tuple(TaskInput(**{**found, "path": tuple(found["path"])}) for found in document["inputs"]),
            nodes=document["nodes"],
            memory=document["memory"],
        )


class TaskSequence(Sequence[TaskSpec]):
    """Executions of tasks of one step; made one by one when they are looked at."""

    @abstractmethod
    def task_at(self, position: int) -> TaskSpec:
        """The task at a position from 0, which is less than the number of tasks."""

    @overload
    def __getitem__(self, index: int) -> TaskSpec: ...
    @overload
    def __getitem__(self, index: slice) -> list[TaskSpec]: ...
    def __getitem__(self, index: int | slice) -> TaskSpec | list[TaskSpec]:
        if isinstance(index, slice):
            return [self.task_at(position) for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self.task_at(position)
