"""The seam between the driver and what runs tasks: the events that it reports, and the protocol of an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec

# The last lines of a container's output that a failed task shows, if the store has no log of it.
TAIL_LINES = 100


@dataclass(frozen=True)
class Queued:
    """A task waits; the reason is given when it is more than a lack of free workers."""

    task: TaskSpec
    reason: str = ""
    resolution: str = ""


@dataclass(frozen=True)
class Reached:
    """A task on a cluster has come closer to its start; emitted in traced runs only.

    Args:
        task: The execution.
        stage: ``created``: the API server has its Job. ``scheduled``: its pod has a node.
        at: When the driver's process learned it, in seconds since 1970.
        where: The node.
    """

    task: TaskSpec
    stage: Literal["created", "scheduled"]
    at: float
    where: str = ""


@dataclass(frozen=True)
class Started:
    """A task's process or container runs.

    Args:
        task: The execution.
        where: The process or the pod.
        is_followed: Whether its output follows while it runs; if not, the end of it does, should it fail.
    """

    task: TaskSpec
    where: str
    is_followed: bool = True


@dataclass(frozen=True)
class Output:
    """A piece of what a task wrote, as it was written; lines may be split between pieces."""

    task: TaskSpec
    stream: Literal["stdout", "stderr"]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Note:
    """Something about a running task that a person should know."""

    task: TaskSpec
    text: str


@dataclass(frozen=True)
class OutputMissing:
    """Lines that a task wrote, and that no ``Output`` had; its stored output is complete."""

    task: TaskSpec
    lines: int


@dataclass(frozen=True)
class Finished:
    """One execution of a task ended; nothing of it runs any more."""

    task: TaskSpec
    result: TaskResult


TaskEvent = Queued | Reached | Started | Output | Note | OutputMissing | Finished
Emit = Callable[[TaskEvent], None]
# Takes an executor's events, or the error that ends it, from whatever thread.
Report = Callable[[TaskEvent | Exception], None]


class Executor(Protocol):
    """Runs tasks somewhere.

    It is made with an ``Emit``, which it may call from any thread; for each submitted task it emits exactly one
    ``Finished``, as its last event.
    """

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Takes tasks of one step that became ready together; returns without waiting for them."""

    def cancel(self) -> None:
        """Stops every task that is not finished, and returns when nothing of them is left."""

    def end(self) -> None:
        """As ``cancel``, for a run that has failed: what finished tasks have left stays for people to look at."""

    def abandon(self) -> None:
        """Asks for the end of every task without waiting for it, as the process leaves; may interrupt ``cancel``."""

    def close(self) -> None:
        """Gives back what the executor holds, after its last task has finished."""
