"""The console of the command line: messages to the standard output and error, runs as lines or as a live block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from k8sflow.runtime.progress import Reporter, reporter
from k8sflow.runtime.progress.console import Tone
from k8sflow.task.spec import TaskName

_COLOURS = {Tone.GOOD: "green", Tone.BAD: "red", Tone.NOTICE: "yellow"}


class Terminal:
    """Prints to this process's standard output and error.

    Args:
        is_quiet: Whether a run shows only what its tasks print, what goes wrong and how it ends.
    """

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet

    def say(self, text: str, tone: Tone = Tone.PLAIN, *, is_aside: bool = False) -> None:
        """Prints a message and a line break; an aside goes to the standard error."""
        click.secho(text, fg=_COLOURS.get(tone), dim=tone is Tone.DIM or None, err=is_aside)

    def write(self, text: str) -> None:
        click.echo(text, nl=False)

    def reporter(
        self, asked_at: float, logs: Callable[[TaskName], str], title: str = "", steps: Sequence[str] = ()
    ) -> Reporter:
        """Shows a run on the standard output."""
        return reporter(asked_at, logs, title, steps, is_quiet=self._is_quiet)
