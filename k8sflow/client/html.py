"""Runs, steps, tasks and artifacts as HTML, for notebooks (``_repr_html_``). All text is escaped; nothing is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

from k8sflow import units
from k8sflow.errors import K8sflowError
from k8sflow.storage.usage import Usage

if TYPE_CHECKING:
    from k8sflow.client.artifact import DataArtifact
    from k8sflow.client.run import Run
    from k8sflow.client.step import Step
    from k8sflow.client.task import Task

_MOST_ROWS = 20
_HEAD = 'style="text-align: left; vertical-align: top"'
# Long words, as in names of types and in hashes, are broken where the page ends, and not cut off there.
_CELL = 'style="text-align: left; vertical-align: top; white-space: normal; overflow-wrap: anywhere; min-width: 3em"'


def run_html(run: Run) -> str:
    """A run: its status, and its steps in the order of the source."""

    def body() -> str:
        started, ended = run.created_at, run.end
        finished = datetime.fromtimestamp(ended.finished) if ended is not None else None  # noqa: DTZ006  local, as all
        facts = [
            ("status", run.status),
            ("started", _moment(started)),
            ("duration", _duration(started, finished)),
            ("user", run.user_name),
            *_used(run.usage),
            ("tags", ", ".join(sorted(run.user_tags))),
            ("resumes", run.origin_pathspec or ""),
        ]
        steps = run.started_steps(run.record.steps)
        counts = [(len(run.task_ids(step.id)), len(run.run_store.committed(step.id))) for step in steps]
        rows = [(step.id, f"{all_:,}", f"{done:,}") for step, (all_, done) in zip(steps, counts, strict=True)]
        return _facts(facts) + _table(("step", "tasks", "finished"), rows)

    return _shown("Run", run.pathspec, body)


def step_html(step: Step) -> str:
    """A step: its tasks, the first branches first."""

    def body() -> str:
        tasks = list(step)[::-1]
        rows = [(task.id, _state(task), *_times(task)) for task in tasks[:_MOST_ROWS]]
        return _table(("task", "state", "started", "duration"), rows, len(tasks))

    return _shown("Step", step.pathspec, body)


def task_html(task: Task) -> str:
    """A task: its state, and its artifacts by name."""

    def body() -> str:
        started, duration = _times(task)
        facts = [
            ("state", _state(task)),
            ("attempt", str(task.current_attempt)),
            ("started", started),
            ("duration", duration),
            *_used(task.usage),
            ("failure", (task.failure or "").partition("\n")[0]),
            ("cached from" if task.is_cached else "clone of", task.origin_pathspec or ""),
        ]
        found = sorted(task.artifacts, key=lambda artifact: artifact.id)
        rows = [(each.id, each.type, units.size(each.size)) for each in islice(found, _MOST_ROWS)]
        return _facts(facts) + _table(("artifact", "type", "size"), rows, len(found))

    return _shown("Task", task.pathspec, body)


def artifact_html(artifact: DataArtifact) -> str:
    """An artifact: its properties, without its value."""

    def body() -> str:
        return _facts([("type", artifact.type), ("size", units.size(artifact.size)), ("sha256", artifact.sha)])

    return _shown("DataArtifact", artifact.pathspec, body)


def _shown(kind: str, pathspec: str, body: Callable[[], str]) -> str:
    """A title and what follows; instead of that the error, if the records can't be read."""
    try:
        content = body()
    except K8sflowError as error:
        content = f"<pre>{escape(str(error))}</pre>"
    return f"<div><strong>{escape(kind)}</strong> <code>{escape(pathspec)}</code>{content}</div>"


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><th {_HEAD}>{escape(name)}</th><td {_CELL}>{escape(value)}</td></tr>" for name, value in pairs if value
    )
    return f"<table>{rows}</table>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], count: int = 0) -> str:
    """A table; below it the number of rows that are not shown, of ``count``; nothing without rows."""
    if not rows:
        return ""
    top = "".join(f"<th {_HEAD}>{escape(title)}</th>" for title in head)
    cells = (("".join(f"<td {_CELL}>{escape(cell)}</td>" for cell in row)) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    more = f"<p>… and {count - len(rows):,} more</p>" if count > len(rows) else ""
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{more}"


def _state(task: Task) -> str:
    if task.finished:
        return "succeeded" if task.successful else "failed, caught"
    return "failed" if task.has_ended else "running or waiting"


def _times(task: Task) -> tuple[str, str]:
    """The start of a task and its duration, as far as known."""
    started = task.created_at
    return _moment(started), _duration(started, task.finished_at)


def _used(usage: Usage | None) -> list[tuple[str, str]]:
    if usage is None:
        return []
    memory, cpu = usage.memory_bytes, usage.cpu_seconds
    return [
        ("peak memory", "" if memory is None else f"{'at least ' * usage.is_partial}{units.size(memory)}"),
        ("CPU time", "" if cpu is None else units.duration(cpu)),
    ]


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""


def _duration(started: datetime | None, finished: datetime | None) -> str:
    if started is None or finished is None:
        return ""
    return units.duration(max(finished.timestamp() - started.timestamp(), 0.0))
