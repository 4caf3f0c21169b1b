"""The content of a task's page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k8sflow import units
from k8sflow.cards.stored import get_cards
from k8sflow.client import Run, Task
from k8sflow.client.logs import STREAMS
from k8sflow.errors import K8sflowError, NotFoundError
from k8sflow.storage.cards import FOLDER
from k8sflow.storage.records import OutcomeRecord
from k8sflow.ui.logs import LogFile
from k8sflow.ui.names import address, checked
from k8sflow.ui.progress import RunReader
from k8sflow.ui.run_view import task_url
from k8sflow.ui.values import short_value

# A card that is larger is shown only when a person asks for it.
_LARGE_CARD = 10 << 20
_LAST_LINES_BYTES = 64 << 10
_LEAST_POLL_SECONDS = 0.5
_FINAL = {"succeeded", "caught", "cloned"}
_EXECUTION = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class CardLink:
    """A card.

    Args:
        name: Its type and id.
        url: The path of its page.
        size: Its size in bytes.
    """

    name: str
    url: str
    size: int

    @property
    def is_large(self) -> bool:
        """True if a browser takes long to show it."""
        return self.size > _LARGE_CARD


def task_of(run: Run, step: str, task: str, attempt: str = "") -> Task:
    """A task of a run.

    Args:
        run: The run.
        step: The step's name.
        task: The task's id.
        attempt: The execution; empty for the one that counts.

    Raises:
        NotFoundError: There is no such task, or it had no such execution.
    """
    if checked(step) not in run.record.steps or not run.run_store.has_task(step, checked(task)):
        raise NotFoundError(
            f"there is no task {run.pathspec}/{step}/{task}.", cause="It has not started, or never will."
        )
    if attempt and not _EXECUTION.fullmatch(attempt):
        raise NotFoundError(f"{attempt[:20]!r} is not the number of an execution.")
    return Task(task, parent=run.unchecked_step(step), attempt=int(attempt) if attempt else None)


def log_of(task: Task, stream: str) -> LogFile:
    """The output of a task; that of its origin if it is a clone.

    Args:
        task: The task.
        stream: ``stdout`` or ``stderr``.
    """
    source = task.origin_task or task
    return LogFile(source.parent.parent.run_store, source.parent.id, source.id, source.current_attempt, stream)


def overview(reader: RunReader, task: Task, chosen: str, stream: str) -> dict[str, Any]:
    """The facts of a task, of one of its executions, and of its artifacts and cards.

    Args:
        reader: Its run.
        task: The task.
        chosen: The execution that was asked for; empty for the one that counts.
        stream: The stream to show.
    """
    step, attempt, attempts = task.parent.id, task.current_attempt, task.attempts
    if not chosen and attempt in attempts:  # the next one may start at any moment
        task = Task(task.id, parent=task.parent, attempt=attempt)
    outcome, log = _outcome(task, attempt), log_of(task, stream)
    state = _state(reader, task, outcome, attempts)
    return {
        "step": step,
        "task": task.id,
        "task_url": task_url(reader, step, task.id),
        "attempt": attempt,
        "chosen": chosen,
        # A clone has no executions of its own.
        "pinned": attempt if attempt in attempts else "",
        "attempts": attempts,
        "state": state,
        "poll_seconds": max(reader.poll_seconds, _LEAST_POLL_SECONDS),
        "is_over": reader.has_ended or state in _FINAL,
        "started": None if (started := task.created_at) is None else started.timestamp(),
        "outcome": outcome if outcome is not None and outcome.outcome.is_failure else None,
        "facts": _facts(task, outcome),
        "stream": stream,
        "streams": STREAMS,
        "log_size": log.size(),
        "log_end": log.last_text(_LAST_LINES_BYTES),
        "artifacts": _artifacts(reader, task),
        "cards": _cards(reader, task),
    }


def _outcome(task: Task, attempt: int) -> OutcomeRecord | None:
    return task.parent.parent.run_store.read_outcome(task.parent.id, task.id, attempt)


def _state(reader: RunReader, task: Task, outcome: OutcomeRecord | None, attempts: Sequence[int]) -> str:
    """The state of the task; of an execution before the last one, its own."""
    row, attempt = reader.row(task.parent.id, task.id), task.current_attempt
    if row is not None and row.attempt == attempt == max([attempt, *attempts]):
        return row.state
    if task.finished:
        return "succeeded" if task.successful else "caught"
    if outcome is not None and outcome.outcome.is_failure:
        return "failed"
    return "lost" if reader.has_ended else "running"


def _facts(task: Task, outcome: OutcomeRecord | None) -> list[tuple[str, str]]:
    started, finished, usage = task.created_at, task.finished_at, task.usage
    seconds = (
        "" if started is None or finished is None else units.duration(max((finished - started).total_seconds(), 0.0))
    )
    pairs = [
        ("duration", seconds),
        ("where", {"dev": "this machine", "kubernetes": "Kubernetes", "batch": "AWS Batch"}[task.runtime_name]),
        ("peak memory", "" if usage is None or usage.memory_bytes is None else units.size(usage.memory_bytes)),
        ("CPU time", "" if usage is None or usage.cpu_seconds is None else units.duration(usage.cpu_seconds)),
        ("memory asked for", outcome.memory if outcome is not None else ""),
        ("clone of", task.origin_pathspec or ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _artifacts(reader: RunReader, task: Task) -> list[tuple[str, str, str, str, str]]:
    """The artifacts: name, type, size, a short look at the value, and the path of the value."""
    store = reader.run_store
    try:
        found = sorted(task.artifacts, key=lambda artifact: artifact.id)
    except K8sflowError as error:
        return [("", "", "", str(error), "")]
    return [
        (
            artifact.id,
            artifact.type.removeprefix("builtins."),
            units.size(artifact.size),
            short_value(store.store, store.flow, artifact.ref, artifact.id),
            f"{task_url(reader, task.parent.id, task.id)}{address('artifacts', artifact.id)}",
        )
        for artifact in found
    ]


def _cards(reader: RunReader, task: Task) -> list[CardLink]:
    source = task.origin_task or task
    store = source.parent.parent.run_store
    prefix = store.task_key(source.parent.id, source.id, f"{source.current_attempt}/{FOLDER}/")
    sizes = {found.key.removeprefix(prefix): found.size for found in store.store.list_objects(prefix)}
    base = task_url(reader, task.parent.id, task.id)
    return [
        CardLink(
            " ".join(filter(None, [card.type, card.id])),
            f"{base}{address('cards', card.file)}?attempt={task.current_attempt}",
            sizes.get(f"{card.file}.html", 0),
        )
        for card in get_cards(task)
    ]
