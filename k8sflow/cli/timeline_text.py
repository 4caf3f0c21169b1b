"""The timeline of a run as text: a bar for each task, a summary of wide steps, and where the time went."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import click

from k8sflow.client.timeline import DRIVER, PHASES, ClockOffset, Execution, Span, Timeline
from k8sflow.runtime.progress.output_lines import settled

# A step with more tasks than this is one row, which shows how many of them ran.
FEW_TASKS = 8
_LEVELS = " ▁▂▃▄▅▆▇█"
_ASCII_LEVELS = " .,:-=+*#"
_WIDEST_LABEL = 28
_DURATION_WIDTH = 8
_LEAST_CHART = 20
_USER_CODE = "user code"
_PERCENTILES = {"p50": 0.5, "p90": 0.9}


@dataclass(frozen=True)
class _Look:
    """The look of a phase: its character, one for terminals without Unicode, and its colour."""

    character: str
    ascii: str
    colour: str


_LOOKS = {
    "queued": _Look("·", ".", "white"),
    "scheduling": _Look(":", ":", "white"),
    "container": _Look("░", "c", "blue"),
    "python": _Look("▒", "p", "cyan"),
    "fetching": _Look("▿", "f", "cyan"),
    "turn": _Look("∙", "t", "white"),
    "loading": _Look("▞", "l", "yellow"),
    "user code": _Look("█", "#", "green"),
    "storing": _Look("▓", "s", "magenta"),
    "reporting": _Look("─", "-", "white"),
    "unknown": _Look("?", "?", "red"),
    DRIVER: _Look(" ", " ", "white"),
}


@dataclass(frozen=True)
class _Chart:
    """The area with the bars: a time for each column."""

    start: float
    end: float
    columns: int
    is_ascii: bool

    @property
    def seconds(self) -> float:
        """The time per column, in seconds."""
        return max(self.end - self.start, 1e-6) / self.columns

    def bar(self, execution: Execution) -> str:
        """The phases of an execution: in each column the one that takes most of it."""
        cells = []
        for column in range(self.columns):
            left = self.start + column * self.seconds
            right = left + self.seconds
            shares = [(min(span.end, right) - max(span.start, left), span.phase) for span in execution.spans]
            most, phase = max(shares)
            cells.append(phase if most > 0 else "")
        return "".join(
            self.styled(phase) * len(list(same)) if phase else " " * len(list(same)) for phase, same in groupby(cells)
        )

    def density(self, executions: Sequence[Execution]) -> str:
        """The number of executions in the user's code as levels; in columns without any, what most are doing."""
        busy: list[Counter[str]] = [Counter() for _ in range(self.columns)]
        for execution in executions:
            for span in execution.spans:
                self._add(busy, span)
        highest = max((counts[_USER_CODE] for counts in busy), default=0.0) or 1.0
        levels = _ASCII_LEVELS if self.is_ascii else _LEVELS
        cells = []
        for counts in busy:
            if (count := counts[_USER_CODE]) > highest / 100:
                level = levels[math.ceil(count / highest * (len(levels) - 1))]
                cells.append(click.style(level, fg=_LOOKS[_USER_CODE].colour))
            else:
                cells.append(self.styled(max(counts, key=counts.__getitem__)) if counts else " ")
        return "".join(cells)

    def _add(self, busy: list[Counter[str]], span: Span) -> None:
        """Adds a span to the average numbers of the columns, with work for its columns only."""
        first = max(0, int((span.start - self.start) / self.seconds))
        last = min(self.columns - 1, int((span.end - self.start) / self.seconds))
        for column in range(first, last + 1):
            left = self.start + column * self.seconds
            inside = min(span.end, left + self.seconds) - max(span.start, left)
            if inside > 0:
                busy[column][span.phase] += inside / self.seconds  # type: ignore[assignment]  # a share of a task

    def axis(self) -> str:
        """Times under the bars, from 0."""
        step = _round_step((self.end - self.start) * 12 / self.columns)
        line = [" "] * self.columns
        count = 0
        while (column := round(count * step / self.seconds)) < self.columns:
            text = seconds(count * step) if count else "0"
            if column + len(text) <= self.columns:
                line[column : column + len(text)] = text
            count += 1
        return "".join(line).rstrip()

    def styled(self, phase: str) -> str:
        """A phase's character."""
        look = _LOOKS[phase]
        return click.style(look.ascii if self.is_ascii else look.character, fg=look.colour)


def draw(title: str, timeline: Timeline, columns: int, *, is_ascii: bool = False) -> Iterator[str]:
    """The lines of a timeline.

    Args:
        title: The run, and how it ended.
        timeline: The timeline.
        columns: The width.
        is_ascii: Whether only ASCII characters can be shown.
    """
    steps = [(step, list(found)) for step, found in groupby(_by_step(timeline), key=lambda execution: execution.step)]
    label = min(_WIDEST_LABEL, max([len(text) for step, found in steps for text in _labels(step, found)], default=0))
    marks = [len(each.outcome) + 1 for _, found in steps if len(found) <= FEW_TASKS for each in found if _is_bad(each)]
    room = max(_LEAST_CHART, columns - label - _DURATION_WIDTH - 2 - max(marks, default=0))
    chart = _Chart(timeline.start, timeline.end, room, is_ascii)
    yield click.style(title, bold=True)
    yield ""
    for step, executions in steps:
        if len(executions) > FEW_TASKS:
            yield from _summary(chart, step, executions, label)
        else:
            for text, execution in zip(_labels(step, executions), executions, strict=True):
                end = seconds(execution.end - execution.start)
                mark = click.style(f" {execution.outcome}", fg="red") if _is_bad(execution) else ""
                yield f"{_cut(text, label):<{label}} {chart.bar(execution)} {end:>{_DURATION_WIDTH}}{mark}".rstrip()
    yield f"{'':<{label}} {chart.axis()}"
    yield ""
    yield from _phases(chart, timeline)
    yield from textwrap.wrap(_made_of(timeline), columns, break_on_hyphens=False)
    yield ""
    yield from _clocks(timeline)


def _is_bad(execution: Execution) -> bool:
    return execution.outcome not in {"", "succeeded"}


def _by_step(timeline: Timeline) -> list[Execution]:
    """The executions, those of each step together, in the order in which the steps began."""
    first: dict[str, int] = {}
    for execution in timeline.executions:
        first.setdefault(execution.step, len(first))
    return sorted(timeline.executions, key=lambda execution: first[execution.step])


def _labels(step: str, executions: Sequence[Execution]) -> list[str]:
    if len(executions) > FEW_TASKS:
        return [f"{step} ({len(executions):,} tasks)"]
    if [execution.task for execution in executions] == ["0"]:
        return [step]
    return [f"{step}/{each.task}" + (f" #{each.attempt}" if each.attempt else "") for each in executions]


def _summary(chart: _Chart, step: str, executions: Sequence[Execution], label: int) -> Iterator[str]:
    """The rows of a wide step: how many of its tasks ran when, and how long they took."""
    took = seconds(max(each.end for each in executions) - min(each.start for each in executions))
    name = _cut(_labels(step, executions)[0], label)
    yield f"{name:<{label}} {chart.density(executions)} {took:>{_DURATION_WIDTH}}"
    total, user = sorted(each.end - each.start for each in executions), sorted(_in_user_code(executions))
    slowest = max(executions, key=lambda each: each.end - each.start)
    parts = [f"{name} {seconds(percentile(total, share))}" for name, share in _PERCENTILES.items()]
    yield f"{'':<{label}} a task: {', '.join(parts)}, max {seconds(total[-1])} ({slowest.name})"
    failed = sum(map(_is_bad, executions))
    yield (
        f"{'':<{label}} your step: p50 {seconds(percentile(user, 0.5))}; at most {_most_at_once(executions):,} at once"
        + (click.style(f"; {failed:,} failed", fg="red") if failed else "")
    )


def _phases(chart: _Chart, timeline: Timeline) -> Iterator[str]:
    """The table of the phases: their share of the duration, and how long they took in the tasks."""
    durations: dict[str, list[tuple[float, str]]] = {phase: [] for phase in PHASES}
    for execution in timeline.executions:
        for span in execution.spans:
            durations[span.phase].append((span.seconds, execution.name))
    whole = max(timeline.end - timeline.start, 1e-9)
    yield click.style(
        f"  {'phase':<10} {'of ' + seconds(whole):>14} {'p50':>8} {'p90':>8} {'max':>8}  slowest", bold=True
    )
    for phase, found in durations.items():
        if not found:
            continue
        times = sorted(taken for taken, _ in found)
        share = timeline.durations[phase]
        columns = [*(percentile(times, part) for part in _PERCENTILES.values()), times[-1]]
        row = " ".join(f"{seconds(taken):>8}" for taken in columns)
        slowest = max(found)[1] if len(found) > 1 and times[-1] > 0 else ""
        yield f"{chart.styled(phase)} {phase:<10} {seconds(share):>8} {share / whole:>5.0%} {row}  {slowest}".rstrip()
    share = timeline.durations[DRIVER]
    yield f"  {DRIVER:<10} {seconds(share):>8} {share / whole:>5.0%}  before, between and after the tasks below"


def _made_of(timeline: Timeline) -> str:
    """The executions that the duration is made of, as a sentence."""
    chain = [each.name for each in timeline.chain]
    shown = chain if len(chain) <= FEW_TASKS else [*chain[:3], f"{len(chain) - 6:,} more", *chain[-3:]]
    return f"The duration is made of {' → '.join(map(settled, shown))}."


def _clocks(timeline: Timeline) -> Iterator[str]:
    """The clocks by which the times are, and how far they were found to be apart."""
    if not timeline.clocks:
        return
    yield "Queued, scheduling and the end by the driver's clock, the rest by the node's:"
    for clock in sorted(timeline.clocks, key=lambda clock: -abs(clock.ahead))[:FEW_TASKS]:
        yield f"  {clock.node}: {_difference(clock)}"
    if len(timeline.clocks) > FEW_TASKS:
        yield f"  and {len(timeline.clocks) - FEW_TASKS} more nodes, closer to the driver's clock"
    if len(timeline.drivers) > 1:
        yield f"{len(timeline.drivers)} drivers, one after the other; their clocks are taken to agree."


def _difference(clock: ClockOffset) -> str:
    if clock.least > clock.most:
        return "was set during the run; its times can't be trusted"
    if not clock.ahead:
        return f"agrees (ahead by {seconds(clock.least)} to {seconds(clock.most)})"
    word = "ahead" if clock.ahead > 0 else "behind"
    by = seconds(abs(clock.ahead))
    more = seconds(clock.most - clock.least)
    return f"{by} {word} (or up to {more} more); its times are shifted"


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of the ordered values is; 0 where there are none."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def seconds(value: float) -> str:
    """A duration in seven characters or fewer: ``12 ms``, ``1.23 s``, ``2m05s``, ``3h10m``."""
    if value < 0:
        return f"-{seconds(-value)}"
    if round(value * 1000) < 1000:  # noqa: PLR2004  a second
        return f"{value * 1000:.0f} ms"
    if value < 60:  # noqa: PLR2004  a minute
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"  # noqa: PLR2004  three digits
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def _in_user_code(executions: Sequence[Execution]) -> list[float]:
    return [span.seconds for each in executions for span in each.spans if span.phase == "user code"]


def _most_at_once(executions: Sequence[Execution]) -> int:
    """The highest number of executions in the user's code at the same time."""
    spans = [span for each in executions for span in each.spans if span.phase in {"user code", "unknown"}]
    changes = sorted([(span.start, 1) for span in spans] + [(span.end, -1) for span in spans])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, … (and minutes, above) that is not below a number of seconds."""
    for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800):
        if step >= least:
            return step
    return 3600.0 * math.ceil(least / 3600)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
