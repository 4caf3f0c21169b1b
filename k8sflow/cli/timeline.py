"""``timeline``: where the time of a traced run went, in the terminal, as JSON or as a trace for Perfetto."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k8sflow.cli import completion, output
from k8sflow.cli.scope import Scope, Selection
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import NotFoundError, RunError

if TYPE_CHECKING:
    from k8sflow.client.timeline import ClockOffset, Execution, Timeline


def command(scope: Scope) -> click.Command:
    """The command ``timeline``."""
    options: list[click.Parameter] = [
        completion.pathspec_argument(scope, "run/step", is_required=scope.flow is None),
        click.Option(
            ["--chrome"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write a trace to this file instead, for https://ui.perfetto.dev or chrome://tracing.",
        ),
        output.JSON_OPTION,
    ]

    def callback(pathspec: str | None, chrome: Path | None, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            selection = scope.select(pathspec)
            timeline = _timeline(selection)
            if chrome is not None:
                _write(chrome, chrome_trace(selection.run.pathspec, timeline))
                click.echo(f"Wrote {chrome}. Open it in https://ui.perfetto.dev, or in chrome://tracing.")
            elif as_json:
                output.print_json(_document(selection, timeline))
            else:
                _print(selection, timeline)

    return click.Command(
        "timeline",
        callback=callback,
        params=options,
        short_help="Show where the time of a run went.",
        help="Show where the time of a run went, or of one of its steps. "
        "The run has to be traced: run --trace, or K8SFLOW_TRACE=1.",
    )


def _timeline(selection: Selection) -> Timeline:
    """The timeline of what was selected.

    Raises:
        RunError: The run was not traced, or nothing of it was traced so far.
        NotFoundError: A task was named.
    """
    from k8sflow.client import timeline  # noqa: PLC0415  --help reads no runs
    from k8sflow.storage.trace import read_trace  # noqa: PLC0415  as above

    run = selection.run
    if selection.task is not None:
        raise NotFoundError("a timeline is of a run or a step, not of a task.", advice=f"Name {run.pathspec}.")
    if not run.record.is_traced:
        raise RunError(
            f"{run.pathspec} was not traced.",
            cause="The times of tasks are recorded only where a run asks for it.",
            advice="Start it with `run --trace`, or with K8SFLOW_TRACE=1 in the environment.",
        )
    end = run.outcome.finished if run.outcome is not None else None
    found = timeline.build(read_trace(run.run_store), run.record.created, end)
    if selection.step is not None and any(each.step == selection.step.id for each in found.executions):
        found = found.of_step(selection.step.id)
    if not found.executions:
        raise RunError(
            f"the trace of {selection.pathspec} is empty.",
            cause="No task has been submitted yet, or the bucket could not be reached.",
            advice="Try again when a task has started.",
        )
    return found


def _print(selection: Selection, timeline: Timeline) -> None:
    from k8sflow.cli.timeline_text import draw, seconds  # noqa: PLC0415  --help draws nothing

    count = len(timeline.executions)
    tasks = "1 execution of a task" if count == 1 else f"{count:,} executions of tasks"
    title = f"{selection.pathspec}: {selection.run.status}, {seconds(timeline.end - timeline.start)}, {tasks}"
    columns = shutil.get_terminal_size().columns
    for line in draw(title, timeline, columns, is_ascii=not _shows("░█→")):
        click.echo(line)


def _shows(text: str) -> bool:
    """True if the standard output has these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _document(selection: Selection, timeline: Timeline) -> dict[str, Any]:
    return {
        "pathspec": selection.pathspec,
        "status": selection.run.status,
        "start": output.utc_time(timeline.start),
        "end": output.utc_time(timeline.end),
        "seconds": {phase: round(taken, 4) for phase, taken in timeline.durations.items()},
        "chain": [execution.name for execution in timeline.chain],
        "clocks": {clock.node: {"ahead_seconds": clock.ahead, "bounds": _bounds(clock)} for clock in timeline.clocks},
        "drivers": list(timeline.drivers),
        "executions": [_described(execution) for execution in timeline.executions],
    }


def _bounds(clock: ClockOffset) -> list[float | None]:
    """Bounds as JSON has them, which knows no infinity."""
    return [bound if abs(bound) != float("inf") else None for bound in (clock.least, clock.most)]


def _described(execution: Execution) -> dict[str, Any]:
    return {
        "step": execution.step,
        "task": execution.task,
        "attempt": execution.attempt,
        "outcome": execution.outcome or None,
        "node": execution.node or None,
        "pod": execution.pod or None,
        "submitted": output.utc_time(execution.start),
        "seen": output.utc_time(execution.end) if execution.outcome else None,
        "phases": {span.phase: round(span.seconds, 4) for span in execution.spans},
    }


def chrome_trace(title: str, timeline: Timeline) -> dict[str, Any]:
    """A trace in the JSON format of Chrome: a process for each step, a thread for each task.

    Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format).
    """
    events: list[dict[str, Any]] = []
    processes: dict[str, int] = {}
    threads: dict[tuple[str, str], int] = {}
    for execution in timeline.executions:
        process = processes.setdefault(execution.step, len(processes) + 1)
        thread = threads.setdefault((execution.step, execution.task), len(threads) + 1)
        facts = {"task": execution.name, "outcome": execution.outcome, "node": execution.node, "pod": execution.pod}
        events += [
            {
                "name": span.phase,
                "cat": "task",
                "ph": "X",
                "pid": process,
                "tid": thread,
                "ts": round((span.start - timeline.start) * 1e6),
                "dur": round(span.seconds * 1e6),
                "args": facts,
            }
            for span in execution.spans
        ]
    named = [_name("process_name", step, number, 0) for step, number in processes.items()]
    named += [_name("thread_name", f"{step}/{task}", processes[step], n) for (step, task), n in threads.items()]
    ahead = {clock.node: clock.ahead for clock in timeline.clocks}
    other = {"run": title, "start": output.utc_time(timeline.start), "clocks ahead of the driver's, seconds": ahead}
    return {"traceEvents": [*named, *events], "displayTimeUnit": "ms", "otherData": other}


def _name(kind: str, name: str, process: int, thread: int) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(document), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror}.", advice="Name another file.") from error
