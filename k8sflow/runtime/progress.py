"""What a person sees of a run: prefixed lines of output, what waits and why, and how it ended."""

from __future__ import annotations

import io
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

import click

from k8sflow.executors.base import Finished, Output, Queued, Started, TaskEvent
from k8sflow.flow.attempts import Catch
from k8sflow.runtime.attempts import Again
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
# What would move the cursor or clear the screen in the middle of the other tasks' lines; colours may pass.
_CURSOR = re.compile(rb"\x1b\[[0-9;?]*[A-HJKSTfhlsu]|\x1b[78c]|[\x00-\x08\x0b\x0c\x0e-\x1a\x7f]")
_LONGEST_LINE = 1 << 16


class LineReporter:
    """Prints the run as lines, each prefixed with step and task.

    Args:
        began: When the run was asked for, by time.monotonic().
        stream: Where to; a terminal gets colours.
    """

    def __init__(self, began: float, stream: TextIO = sys.stdout) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal can't show is no reason to fail
        self._stream = stream
        self._began = began
        self._partial: dict[tuple[TaskName, str], bytes] = {}
        self._submitted: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._told: dict[TaskName, str] = {}

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Counts the tasks of a step."""
        step = group[0].name.step
        if group[0].attempt == 0:
            self._submitted[step] += len(group)
            if len(group) > 1:
                self._say(f"{step}: {len(group)} branches", dim=True)

    def event(self, event: TaskEvent) -> None:
        """Prints what a task's event means to a person."""
        match event:
            case Output(task, stream, data):
                self._output(task, stream, data)
            case Queued(task, reason, resolution):
                if reason and self._told.get(task.name) != reason:
                    self._told[task.name] = reason
                    self._line(task.name, f"waits: {reason}", "yellow")
                    if resolution:
                        self._line(task.name, f"  {resolution}", "yellow")
            case Started(task, where):
                self._told.pop(task.name, None)
                self._line(task.name, f"started ({where})", dim=True)
            case Finished(task, result):
                self._end(task, result)

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """Tells why a task runs again, and when."""
        why = result.diagnosis.summary if result.diagnosis else result.outcome.value
        when = f" in {_duration(again.pause_seconds)}" if again.pause_seconds else ""
        price = "this costs no retry" if again.number is None else f"retry {again.number} of {again.times}"
        self._line(task.name, f"{why}; it is run again{when} ({price})", "yellow")

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """Tells that the run goes on without what the task should have done."""
        why = result.diagnosis.summary if result.diagnosis else result.outcome.value
        if catch.print_exception and result.diagnosis is not None:
            for line in result.diagnosis.detail.splitlines():
                self._line(task.name, line)
        where = f", with the exception in self.{catch.var}" if catch.var else ""
        self._line(task.name, f"{why}; @catch lets the run go on{where}", "yellow")
        self._finished[task.name.step] += 1

    def cancelling(self) -> None:
        """Tells that the run is being cancelled."""
        self._say("Cancelling; Ctrl-C again leaves at once.", colour="yellow")

    def failure(self, task: TaskSpec, result: TaskResult) -> None:
        """Prints the diagnosis of the failure that ended the run."""
        self._say("")
        diagnosis = result.diagnosis
        summary = diagnosis.summary if diagnosis else result.outcome.value
        self._say(f"{task.pathspec} failed ({result.outcome.value.replace('_', ' ')}): {summary}", colour="red")
        if diagnosis is not None and diagnosis.detail:
            self._say(_indented(diagnosis.detail))
        if diagnosis is not None and diagnosis.resolution:
            self._say(f"What to do: {diagnosis.resolution}")

    def summary(self, pathspec: str, outcome: str, hint: str, *, good: bool) -> None:
        """Prints the last lines: how the run ended, how long it took, and what to do next."""
        seconds = time.monotonic() - self._began
        tasks = sum(self._finished.values())
        self._say(
            f"{pathspec} {outcome} in {_duration(seconds)} ({tasks} task{'' if tasks == 1 else 's'}). {hint}",
            colour="green" if good else "red",
        )

    def _output(self, task: TaskSpec, stream: str, data: bytes) -> None:
        key = (task.name, stream)
        data = self._partial.pop(key, b"") + data
        *lines, rest = data.split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        for line in lines:
            self._text(task.name, line)
        if rest:
            # A progress bar rewrites its line by \r: only what it shows last is kept.
            self._partial[key] = rest.rpartition(b"\r")[2] if len(rest) > 4096 else rest  # noqa: PLR2004

    def _text(self, name: TaskName, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        self._line(name, _CURSOR.sub(b"", shown).decode("utf-8", "replace"))

    def _end(self, task: TaskSpec, result: TaskResult) -> None:
        for stream in ("stdout", "stderr"):
            if rest := self._partial.pop((task.name, stream), b""):
                self._text(task.name, rest)
        if result.outcome is Outcome.SUCCEEDED:
            self._finished[task.name.step] += 1
            self._line(task.name, "done", dim=True)
        else:
            self._line(task.name, f"failed: {result.outcome.value.replace('_', ' ')}", "red")

    def _line(self, name: TaskName, text: str, colour: str | None = None, *, dim: bool = False) -> None:
        steps = list(self._submitted)
        position = steps.index(name.step) if name.step in self._submitted else 0
        prefix = click.style(f"[{name}]", fg=_COLOURS[position % len(_COLOURS)])
        body = click.style(text, fg=colour, dim=dim) if colour or dim else text
        click.echo(f"{prefix} {body}", file=self._stream)

    def _say(self, text: str, *, colour: str | None = None, dim: bool = False) -> None:
        click.echo(click.style(text, fg=colour, dim=dim) if colour or dim else text, file=self._stream)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _duration(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004  seconds in a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
