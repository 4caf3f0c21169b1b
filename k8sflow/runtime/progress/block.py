"""The block at the bottom of a terminal: a row for each step, as wide and as high as there is room."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from k8sflow.runtime.progress.output_lines import clean
from k8sflow.runtime.progress.tally import StepTally, Tally
from k8sflow.units import duration

_NARROWEST_BAR, _WIDEST_BAR = 8, 40
_HEADERS = ("done", "running", "waiting", "failed", "time", "left")
_GAP = 2
_MOST_ROWS = 20
# Of so many unfinished lines the last state is shown, one for so many lines of the terminal.
_MOST_UNFINISHED, _ROWS_FOR_ONE = 3, 8


def render(console: Console, title: str, tally: Tally, now: float, coming: Sequence[str], height: int) -> list[str]:
    """The block's lines, none wider than the terminal.

    Args:
        console: Tells width and colours.
        title: The run.
        tally: What is known of its steps.
        now: The time by the tally's clock.
        coming: Steps that may still begin.
        height: How many lines the terminal has.
    """
    rows, hidden = _chosen(list(tally.steps.values()), max(1, min(_MOST_ROWS, height // 2) - 4))
    name_width = min(max((cell_len(step.name) for step in rows), default=0), console.width // 4)
    cells = [[*_counts(step), *_times(step, now)] for step in rows]
    widths = [max(map(cell_len, map(str, column))) for column in zip(_HEADERS, *cells, strict=True)]
    while name_width + sum(widths) + _GAP * (len(widths) + 1) > console.width and len(widths) > 1:
        widths.pop()  # the times first; whole columns, since half a number tells a lie
    bar_width = min(_WIDEST_BAR, console.width - name_width - sum(widths) - _GAP * (len(widths) + 2))
    has_bar = bar_width >= _NARROWEST_BAR and any(step.has_share for step in rows)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("", no_wrap=True, overflow="ellipsis", width=name_width)
    if has_bar:
        table.add_column("", width=bar_width)
    for header, width in zip(_HEADERS, widths, strict=False):
        table.add_column(header, justify="right", no_wrap=True, width=width)
    for step, counts in zip(rows, cells, strict=True):
        table.add_row(_name(step), *([_bar(step, bar_width)] if has_bar else []), *counts[: len(widths)])
    unfinished = list(tally.unfinished.items())[: min(_MOST_UNFINISHED, height // _ROWS_FOR_ONE)]
    with console.capture() as capture:
        console.print()
        console.print(Text(title, style="bold"), no_wrap=True, overflow="ellipsis", crop=True)
        console.print(table, crop=True, no_wrap=True)
        for (task, _), line in unfinished:
            console.print(_last_state(str(task), line), no_wrap=True, overflow="ellipsis", crop=True)
        if more := _more(hidden, coming):
            console.print(Text(more, style="dim"), no_wrap=True, overflow="ellipsis", crop=True)
    return capture.get().splitlines()


def _chosen(steps: Sequence[StepTally], most: int) -> tuple[list[StepTally], int]:
    """The steps that there is room for, those that go on before those that are over; and how many are left out."""
    if len(steps) <= most:
        return list(steps), 0
    going_on = [step for step in steps if not step.is_over]
    over = [step for step in steps if step.is_over]
    kept = {id(step) for step in [*going_on, *reversed(over)][:most]}
    return [step for step in steps if id(step) in kept], len(steps) - most


def _name(step: StepTally) -> Text:
    style = "red" if step.failed else ("green" if step.is_over else "bold" if step.running else "")
    return Text(step.name, style=style)


def _bar(step: StepTally, width: int) -> ProgressBar | str:
    if not step.has_share:
        return ""
    done = step.done + step.before + step.failed
    return ProgressBar(total=step.total + step.before, completed=done, width=width)


def _counts(step: StepTally) -> list[Text]:
    done = step.done + step.before
    counts = ((done, "green"), (step.running, "bold"), (step.waiting, "yellow"), (step.failed, "bold red"))
    return [Text(f"{count:,}", style=style) if count else Text("·", style="dim") for count, style in counts]


def _times(step: StepTally, now: float) -> list[Text]:
    if step.total == 0:
        return [Text("before", style="dim"), Text("")]
    left = step.remaining(now)
    return [Text(duration(step.elapsed(now))), Text("" if left is None else f"~{duration(left)}", style="dim")]


def _last_state(task: str, line: bytes) -> Text:
    """The current state of a progress bar, which becomes a line above the block when it ends."""
    shown = click.unstyle(clean(line + b"\n")).expandtabs().rstrip("\n")
    return Text(f"[{task}] {shown}", style="dim")


def _more(hidden: int, coming: Sequence[str]) -> str:
    parts = [f"{hidden} more step{'' if hidden == 1 else 's'} started"] if hidden else []
    if coming:
        parts.append(f"to come: {', '.join(coming)}")
    return "; ".join(parts)
