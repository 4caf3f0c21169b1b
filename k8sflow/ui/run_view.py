"""The content of a run's page, as values for its template and as JSON for its script."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8sflow import units
from k8sflow.client.advice import Requested
from k8sflow.errors import K8sflowError
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.tags import system_tags
from k8sflow.ui.names import address, address_of_run
from k8sflow.ui.progress import RunReader, TaskRow
from k8sflow.ui.values import short_value

_MOST_FAILURES = 5
_BAD = ("failed", "retrying", "caught", "lost")


@dataclass(frozen=True)
class Failure:
    """A task that failed.

    Args:
        name: Its step and id.
        url: Its page.
        state: Its state.
        outcome: How its last execution ended.
        summary: What happened.
        detail: The evidence.
        resolution: What to do.
    """

    name: str
    url: str
    state: str
    outcome: str
    summary: str = ""
    detail: str = ""
    resolution: str = ""


def base_facts(reader: RunReader) -> dict[str, Any]:
    """The facts of a run that every page about it shows."""
    record = reader.record
    return {
        "flow": record.flow,
        "run": reader.run.id,
        "status": reader.status,
        "url": address_of_run(record.flow, reader.run.id),
        "created": record.created,
        "finished": reader.outcome.finished if reader.outcome is not None else None,
    }


def overview(reader: RunReader) -> dict[str, Any]:
    """The facts of a run, and tables about it."""
    record, store = reader.record, reader.run_store
    rows = reader.rows()
    return {
        **base_facts(reader),
        "facts": _facts(reader),
        "error": reader.error,
        "outcome": _outcome_to_show(reader.outcome),
        "failures": failures(reader, rows),
        "steps": steps(reader, rows),
        "parameters": [
            (
                name,
                ref.type.removeprefix("builtins."),
                short_value(store.store, store.flow, ref, name),
                units.size(ref.size),
            )
            for name, ref in sorted(record.parameters.items())
        ],
        "tags": _tags(reader),
        "tasks": rows[:200],
        "task_count": len(rows),
        "is_traced": record.is_traced,
    }


def _outcome_to_show(outcome: OutcomeRecord | None) -> OutcomeRecord | None:
    return outcome if outcome is not None and outcome.outcome.is_failure else None


def _facts(reader: RunReader) -> list[tuple[str, str]]:
    record = reader.record
    usage = reader.outcome.usage if reader.outcome is not None else None
    memory = "" if usage is None or usage.memory_bytes is None else units.size(usage.memory_bytes)
    cpu = "" if usage is None or usage.cpu_seconds is None else units.duration(usage.cpu_seconds)
    python = f"Python {record.python_version}, k8sflow {record.k8sflow_version}" if record.python_version else ""
    pairs = [
        ("user", record.user),
        ("resumes", f"{record.flow}/{record.origin_run_id}" if record.origin_run_id else ""),
        ("where", _where(record)),
        ("with", ", ".join(record.decorators)),
        ("peak memory of a task", memory),
        ("CPU time", cpu),
        ("file", record.source or record.file),
        ("versions", python),
    ]
    return [(name, value) for name, value in pairs if value]


def _where(record: RunRecord) -> str:
    found = ["Kubernetes"] * bool(record.pods) + ["AWS Batch"] * bool(record.batch)
    remote = record.pods.keys() | record.batch.keys()
    if remote < set(record.steps):
        found.append("this machine" if not record.is_detached else "the driver's pod")
    return " and ".join(found)


def _tags(reader: RunReader) -> tuple[list[str], list[str]]:
    """The tags of people, and those of the system."""
    try:
        return sorted(reader.run_store.read_tags()), sorted(system_tags(reader.record))
    except K8sflowError:
        return [], []


def failures(reader: RunReader, rows: Sequence[TaskRow]) -> list[Failure]:
    """The first tasks that failed, with the evidence; those that wait for a retry come last."""
    bad = sorted((row for row in rows if row.state in _BAD and row.failures), key=lambda row: _BAD.index(row.state))
    found = []
    for row in bad[:_MOST_FAILURES]:
        last = row.failures[-1]
        common = (f"{row.step}/{row.task}", task_url(reader, row.step, row.task), row.state, last.outcome)
        try:
            outcome = reader.run_store.read_outcome(row.step, row.task, last.attempt)
        except K8sflowError as error:
            found.append(Failure(*common, str(error)))
            continue
        if outcome is not None:
            found.append(Failure(*common, outcome.summary, outcome.detail, outcome.resolution))
    return found


def task_url(reader: RunReader, step: str, task: str) -> str:
    """The path of a task's page."""
    return address("runs", reader.record.flow, reader.run.id, "tasks", step, task)


def steps(reader: RunReader, rows: Sequence[TaskRow]) -> list[dict[str, Any]]:
    """The steps with the numbers of their tasks, their times, and the resources that they asked for and used."""
    by_step: dict[str, list[TaskRow]] = {step: [] for step in reader.record.steps}
    for row in rows:
        by_step[row.step].append(row)
    return [_step(reader, step, found) for step, found in by_step.items()]


def _step(reader: RunReader, step: str, rows: Sequence[TaskRow]) -> dict[str, Any]:
    own = [row for row in rows if row.state != "cloned" and row.started is not None]
    first = min((row.started for row in own if row.started is not None), default=None)
    last = max((row.finished for row in own if row.finished is not None), default=None)
    longest = max((row.finished - row.started for row in own if row.finished and row.started), default=None)
    memory = max((row.memory_bytes for row in rows if row.memory_bytes is not None), default=None)
    cpu = [row.cpu_seconds for row in rows if row.cpu_seconds is not None]
    asked = Requested.of(reader.record, step)
    return {
        "name": step,
        "doc": reader.record.graph[step].doc,
        "counts": Counter(row.state for row in rows),
        "tasks": len(rows),
        "expected": reader.expected.get(step),
        "state": state_of(Counter(row.state for row in rows), reader.expected.get(step), is_over=reader.has_ended),
        "started": first,
        "seconds": None if first is None or last is None else max(last - first, 0.0),
        "longest": longest,
        "asked": _amounts(asked.memory_bytes, asked.cores),
        "memory_asked": asked.memory_bytes,
        "memory_used": memory,
        "cpu_used": sum(cpu) if cpu else None,
    }


def _amounts(memory: int | None, cores: float | None) -> str:
    words = [
        f"{cores:g} core{'' if cores == 1 else 's'}" if cores is not None else "",
        units.size(memory) if memory is not None else "",
    ]
    return ", ".join(filter(None, words))


def state_of(counts: Mapping[str, int], expected: int | None, *, is_over: bool) -> str:
    """The state of a step, from those of its tasks."""
    total = sum(counts.values())
    for state in ("failed", "lost"):
        if counts.get(state):
            return state
    if counts.get("retrying") or counts.get("running"):
        return "running"
    if not total:
        return "none"
    if expected is not None and total < expected:
        return "lost" if is_over else "running"
    return "caught" if counts.get("caught") else "succeeded"


def state(reader: RunReader, since: int) -> dict[str, Any]:
    """The changes after a version, for the page's script.

    Args:
        reader: The run.
        since: The version; 0 for everything.
    """
    version = reader.version
    counts = reader.counts()
    return {
        "version": version,
        "now": time.time(),
        "status": reader.status,
        "created": reader.record.created,
        "finished": reader.outcome.finished if reader.outcome is not None else None,
        "error": reader.error,
        "poll": reader.poll_seconds,
        "steps": [
            [
                step,
                reader.expected.get(step),
                dict(counts.get(step, {})),
                state_of(counts.get(step, {}), reader.expected.get(step), is_over=reader.has_ended),
            ]
            for step in reader.steps
        ],
        "tasks": [row.to_list(reader.steps) for row in reader.changed(since)],
    }
