"""Which task to run: the value that a driver hands to a process or a pod."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, order=True)
class TaskName:
    """A task's place in the graph: its step, and the indices of the foreach branches around it (invariant I2)."""

    step: str
    path: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """The name within its step: ``3.1``, or ``0`` for a task outside of any foreach."""
        return ".".join(map(str, self.path)) or "0"

    def __str__(self) -> str:
        return f"{self.step}/{self.id}"


@dataclass(frozen=True)
class TaskInput:
    """A range of parent tasks: ``width`` branches below ``path`` when width is given, else the one task at ``path``."""

    step: str
    path: tuple[int, ...]
    width: int | None = None

    def __len__(self) -> int:
        return 1 if self.width is None else self.width

    def __getitem__(self, index: int) -> TaskName:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return TaskName(self.step, self.path if self.width is None else (*self.path, index))


@dataclass(frozen=True)
class TaskSpec:
    """One execution of one task.

    Args:
        flow: The flow's class name.
        run: The run's id.
        name: The task's place in the graph.
        attempt: Which execution of the task this is, from 0.
        inputs: The tasks whose results it reads, in the order in which the join sees them.
    """

    flow: str
    run: str
    name: TaskName
    attempt: int = 0
    inputs: tuple[TaskInput, ...] = ()

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task``, as the client and the command line name it."""
        return f"{self.flow}/{self.run}/{self.name}"

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
            name=TaskName(document["name"]["step"], tuple(document["name"]["path"])),
            attempt=document["attempt"],
            inputs=tuple(TaskInput(i["step"], tuple(i["path"]), i["width"]) for i in document["inputs"]),
        )
