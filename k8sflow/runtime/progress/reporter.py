"""Tells a person of a run: prefixed lines of output, what waits and why, and how it ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import click

from k8sflow.errors import RunError
from k8sflow.executors.base import Finished, Note, Output, OutputMissing, Queued, Started, TaskEvent
from k8sflow.flow.decorators.policy import Catch
from k8sflow.flow.outcome import Outcome
from k8sflow.outages import Notice
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.progress.output_lines import OutputLines, brief, prefixed, settled
from k8sflow.runtime.progress.silent import Silent
from k8sflow.runtime.progress.tally import Tally
from k8sflow.storage.usage import Usage
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.units import duration, rough_age, size

if TYPE_CHECKING:
    from k8sflow.runtime.core.result_cache import Taken

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
# More of one task would be unreadable while it runs; all of it is in the log.
_MOST_SHOWN_BYTES = 64 << 20


class View(Protocol):
    """The destination of lines."""

    has_colours: bool
    # Whether the view itself tells which tasks start and end, so that no lines need to.
    tells_tasks: bool

    def write(self, lines: str) -> None:
        """Shows whole lines."""

    def follow(self, tally: Tally) -> None:
        """Shows the tally from now on; may be called at every event."""

    def hurry(self) -> None:
        """The run is being cancelled: no writer is blocked any more."""

    def close(self) -> None:
        """Leaves what was shown as it is; lines may follow."""


class Reporter(Observer):
    """Turns the driver's events into lines.

    Args:
        began: When the run was asked for, by time.monotonic().
        view: Where the lines go.
        logs: How a task's output is seen.
        is_quiet: Whether to leave out what each step did.
    """

    def __init__(self, began: float, view: View, logs: Callable[[TaskName], str], *, is_quiet: bool = False) -> None:
        self._began = began
        self._view = view
        self._logs = logs
        self._is_quiet = is_quiet
        self.tally = Tally()
        self._outputs: dict[tuple[TaskName, str], OutputLines] = {}
        self._shown: dict[TaskName, int] = {}
        self._reasons: dict[TaskName, str] = {}
        self._colour_of: dict[str, str] = {}
        self._silent = Silent()

    def close(self) -> None:
        """Leaves the terminal as it was, in whatever way the run ends; lines may follow."""
        self._view.close()

    def opened(self, step: str, width: int) -> None:
        """Tells the width of a foreach."""
        if width > 1 and not self._view.tells_tasks:
            self._say(f"{step}: {width:,} branches", dim=True)

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Counts the tasks of a step."""
        self.tally.submitted(group)
        self._view.follow(self.tally)

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Counts tasks of a step that have a result from before; what was printed then is not shown again."""
        self.tally.done_before(tasks)
        self._view.follow(self.tally)

    def cached(self, taken: Taken) -> None:
        """Tells whose result a task has."""
        self.tally.cached(taken.task)
        if not self._view.tells_tasks:
            age = rough_age(max(0.0, time.time() - taken.finished))
            self._line(taken.task.name, f"cached from {taken.origin} ({age} ago)", dim=True)
        self._view.follow(self.tally)

    def event(self, event: TaskEvent) -> None:
        """Tells what a task's event means to a person."""
        self.tally.event(event)
        match event:
            case Output(task, stream, data):
                self._output(task, stream, data)
            case Queued(task, reason, resolution):
                if reason and self._reasons.get(task.name) != reason:
                    self._reasons[task.name] = reason
                    self._line(task.name, f"waits: {reason}", "yellow")
                    if resolution:
                        self._line(task.name, f"  {resolution}", "yellow")
            case Started(task, where):
                self._reasons.pop(task.name, None)
                if not self._view.tells_tasks:
                    self._line(task.name, f"started ({where})", dim=True)
            case Note(task, text):
                self._line(task.name, text, "yellow")
            case OutputMissing(task, lines):
                what = "1 line was" if lines == 1 else f"{lines:,} lines were"
                self._line(task.name, f"{what} not shown; all of them: {self._logs(task.name)}", "yellow")
            case Finished(task, result):
                self._end(task, result)
        self._count_silent(event)
        self._view.follow(self.tally)

    def _count_silent(self, event: TaskEvent) -> None:
        """Says from time to time how many tasks run without showing their output."""
        self._silent.event(event)
        if (count := self._silent.due()) is not None:
            self._say(f"{count}: {self._logs(self._silent.example)}", dim=True)

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """Tells why a task runs again, and when."""
        self.tally.retried(task, result)
        if result.outcome in {Outcome.SUCCEEDED, Outcome.CANCELLED}:
            return  # it runs together with another one, which is reported
        when = f" in {duration(again.pause_seconds)}" if again.pause_seconds else ""
        price = "this costs no retry" if again.number is None else f"retry {again.number} of {again.times}"
        more = f" with memory={again.memory}" if again.memory else ""
        self._line(task.name, f"{brief(_why(result))}; it is run again{more}{when} ({price})", "yellow")

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """Reports that the run continues without the task's result."""
        self.tally.caught(task)
        if catch.print_exception and result.failure is not None:
            for line in result.failure.detail.splitlines():
                self._line(task.name, line)
        where = f", with the exception in self.{catch.var}" if catch.var else ""
        self._line(task.name, f"{brief(_why(result))}; @catch lets the run continue{where}", "yellow")

    def notice(self, notice: Notice) -> None:
        """Reports something about the run as a whole; may be called in any thread."""
        with contextlib.suppress(OSError, RunError):  # the driver's own thread finds out that the output is closed
            self._say(notice.text, colour="yellow")

    def cancelling(self) -> None:
        """Tells that the run is being cancelled."""
        self._view.hurry()
        self._say("Cancelling; Ctrl-C again leaves at once.", colour="yellow")

    def failure(self, task: TaskSpec, result: TaskResult) -> None:
        """Tells the diagnosis of the failure that ended the run, and how to see the task's output."""
        self._view.close()
        self._say("")
        how = "was cancelled" if result.outcome is Outcome.CANCELLED else f"failed ({_outcome(result)})"
        self._say(f"{task.pathspec} {how}: {_why(result)}", colour="red")
        failure = result.explained
        if failure.detail:
            self._say("\n".join(f"    {line}" for line in failure.detail.splitlines()))
        if failure.resolution:
            self._say(f"What to do: {failure.resolution}")

    def summary(
        self, pathspec: str, outcome: str, hint: str, usage: Mapping[str, Usage] | None = None, *, good: bool
    ) -> None:
        """Tells how the run ended, step by step, how long it took, what it used, and what to do next."""
        self._view.close()
        now, tasks = time.monotonic(), self.tally.done
        for row in [] if self._is_quiet else _rows(self.tally, now, usage or {}):
            self._say(row, dim=True)
        for name, note in self.tally.notes:
            self._line(name, note, "yellow")
        cached = sum(step.cached for step in self.tally.steps.values())
        took = f"in {duration(now - self._began)} ({tasks:,} task{'' if tasks == 1 else 's'}"
        took += f", {cached:,} cached)" if cached else ")"
        self._say(f"{pathspec} {outcome} {took}.", colour="green" if good else "red")
        if hint:
            self._say(hint)

    def _output(self, task: TaskSpec, stream: str, data: bytes) -> None:
        shown = self._shown.get(task.name, 0)
        if shown > _MOST_SHOWN_BYTES:
            return
        output = self._outputs.setdefault((task.name, stream), OutputLines())
        lines = output.add(data)
        if output.rest:
            self.tally.unfinished[task.name, stream] = output.rest
        else:
            self.tally.unfinished.pop((task.name, stream), None)
        text = prefixed(self._prefix(task.name), lines, coloured=self._view.has_colours) if lines else ""
        if text:
            self._view.write(text)
        self._shown[task.name] = shown = shown + max(len(text), len(data))
        if shown > _MOST_SHOWN_BYTES:
            self._line(task.name, f"… what follows is not shown here, but kept: {self._logs(task.name)}", "yellow")

    def _end(self, task: TaskSpec, result: TaskResult) -> None:
        is_cut = self._shown.pop(task.name, 0) > _MOST_SHOWN_BYTES
        for stream in ("stdout", "stderr"):
            self.tally.unfinished.pop((task.name, stream), None)
            output = self._outputs.pop((task.name, stream), None)
            if output is not None and not is_cut and (rest := output.end()):
                self._view.write(prefixed(self._prefix(task.name), rest, coloured=self._view.has_colours))
        if result.outcome is Outcome.CANCELLED:
            self._line(task.name, "cancelled", "red")
        elif result.outcome is not Outcome.SUCCEEDED:
            self._line(task.name, f"failed: {_outcome(result)}", "red")
        elif not self._view.tells_tasks:
            self._line(task.name, "done", dim=True)

    def _prefix(self, name: TaskName) -> str:
        if not self._view.has_colours:
            return f"[{name}] "
        colour = self._colour_of.setdefault(name.step, _COLOURS[len(self._colour_of) % len(_COLOURS)])
        return f"{click.style(f'[{name}]', fg=colour)} "

    def _line(self, name: TaskName, text: str, colour: str | None = None, *, dim: bool = False) -> None:
        self._view.write(f"{self._prefix(name)}{self._styled(text, colour, dim=dim)}\n")

    def _say(self, text: str, *, colour: str | None = None, dim: bool = False) -> None:
        self._view.write(f"{self._styled(text, colour, dim=dim)}\n")

    def _styled(self, text: str, colour: str | None, *, dim: bool) -> str:
        text = settled(text)
        if "\x1b" in text:  # colours of the user's
            text = f"{text}\x1b[0m"
        if not self._view.has_colours:
            return click.unstyle(text)
        return click.style(text, fg=colour, dim=dim) if text and (colour or dim) else text


def _outcome(result: TaskResult) -> str:
    return result.outcome.value.replace("_", " ")


def _why(result: TaskResult) -> str:
    return result.explained.summary


def _rows(tally: Tally, now: float, usage: Mapping[str, Usage]) -> list[str]:
    """A line for each step: what became of its tasks, how long it took, and what they used."""
    widest = max((len(name) for name in tally.steps), default=0)
    rows = []
    for step in tally.steps.values():
        counts = {
            "done before": step.before,
            "done": step.done - step.cached,
            "cached": step.cached,
            "failed": step.failed - step.cancelled,
            "cancelled": step.cancelled + step.running,
            "not started": step.waiting,
        }
        listed = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        again = f", {step.retries:,} run again" if step.retries else ""
        took = duration(step.elapsed(now)) if step.total else ""
        rows.append(f"  {step.name:<{widest}}  {took:>9}  {listed}{again}{_used(usage.get(step.name))}")
    return rows


def _used(usage: Usage | None) -> str:
    """The peak memory of a step's tasks, and their CPU time, as the end of a line."""
    if usage is None or usage.memory_bytes is None or usage.cpu_seconds is None:
        return ""
    memory = f"{size(usage.memory_bytes)} of memory"
    peak = f"at least {memory}" if usage.is_partial else f"{memory} at most"
    return f"; {peak}, {duration(usage.cpu_seconds)} of CPU time"
