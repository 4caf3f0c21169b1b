"""The port through which commands print: the command line implements it, and so can a program that embeds a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from k8sflow.runtime.progress.reporter import Reporter
from k8sflow.task.spec import TaskName


class Tone(Enum):
    """The meaning of a message to its reader."""

    PLAIN = "plain"
    DIM = "dim"
    GOOD = "good"
    BAD = "bad"
    NOTICE = "notice"


class Console(Protocol):
    """Prints what a command reports."""

    def say(self, text: str, tone: Tone = Tone.PLAIN, *, is_aside: bool = False) -> None:
        """Prints a message and a line break; an aside is not part of the command's output."""

    def write(self, text: str) -> None:
        """Prints text as it is."""

    def reporter(
        self, asked_at: float, logs: Callable[[TaskName], str], title: str = "", steps: Sequence[str] = ()
    ) -> Reporter:
        """Shows a run while it is driven.

        Args:
            asked_at: When the user asked for it, by time.monotonic().
            logs: The command that shows a task's output.
            title: The run.
            steps: The flow's steps, in their order.
        """
