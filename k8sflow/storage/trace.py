"""The trace of a run (``run --trace``): when its driver and its tasks passed which moment, each by its own clock.

<flow>/runs/<run>/trace/<time>-<process>              the driver's moments, a line of JSON for each; one log per driver
<flow>/runs/<run>/tasks/<step>/<task>/<attempt>/trace.json    the moments that an execution's own process saw
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from k8sflow.errors import ObjectNotFoundError
from k8sflow.storage.objects import LogWriter
from k8sflow.storage.records import dump
from k8sflow.storage.run_store import RunStore

FOLDER, _FILE = "trace", "trace.json"


@dataclass(frozen=True)
class ExecutionTrace:
    """The moments of one execution, by the clock of the machine that it ran on.

    Args:
        step: The task's step.
        task: Its id.
        attempt: The execution.
        moments: The times in seconds since 1970, by name (``task/moments.py``).
        node: The node of its pod; empty on the driver's machine.
        pod: The pod's name.
    """

    step: str
    task: str
    attempt: int
    moments: Mapping[str, float]
    node: str = ""
    pod: str = ""


@dataclass(frozen=True)
class DriverMoment:
    """A moment of an execution, by the clock of the driver's machine.

    Args:
        step: The task's step.
        task: Its id.
        attempt: The execution.
        moment: ``submitted``, ``created`` (its Job), ``scheduled`` (its pod), ``started``, ``seen`` (its end).
        at: The time in seconds since 1970.
        detail: The node, or how it ended.
    """

    step: str
    task: str
    attempt: int
    moment: str
    at: float
    detail: str = ""

    def to_line(self) -> bytes:
        """The moment as a line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True)
class RunTrace:
    """Everything that was traced of a run.

    Args:
        drivers: The processes that drove it, one after the other.
        moments: The moments that they saw.
        executions: The moments that the executions saw themselves.
    """

    drivers: list[str]
    moments: list[DriverMoment]
    executions: list[ExecutionTrace]


def write_execution(run_store: RunStore, trace: ExecutionTrace) -> None:
    """Stores the moments of an execution."""
    key = run_store.task_key(trace.step, trace.task, f"{trace.attempt}/{_FILE}")
    document = {"moments": dict(trace.moments), "node": trace.node, "pod": trace.pod}
    run_store.store.put(key, [dump(document)])


def open_driver_trace(run_store: RunStore, driver: str) -> LogWriter:
    """A log for the lines of ``DriverMoment.to_line`` of one driver, which has a unique name that sorts by time."""
    return run_store.store.open_log(f"{run_store.prefix}/{FOLDER}/{driver}")


def read_trace(run_store: RunStore) -> RunTrace:
    """Reads the trace of a run; one without anything if the run is not traced."""
    keys = sorted(run_store.store.list_keys(f"{run_store.prefix}/{FOLDER}/"))
    moments = [DriverMoment(**found) for key in keys for found in _lines(run_store.store.tail(key, 0))]
    drivers = [key.rpartition("/")[2] for key in keys]
    return RunTrace(drivers, moments, _read_executions(run_store) if keys else [])


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    """The documents in a log, without a truncated last line."""
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def _read_executions(run_store: RunStore) -> list[ExecutionTrace]:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  a task, which writes only, needs none

    names = []
    for step, task, rest in run_store.task_keys():
        attempt, _, file = rest.partition("/")
        if file == _FILE and attempt.isdigit():
            names.append((step, task, int(attempt)))

    def read(name: tuple[str, str, int]) -> ExecutionTrace | None:
        step, task, attempt = name
        key = run_store.task_key(step, task, f"{attempt}/{_FILE}")
        try:
            data = bytes(run_store.store.get(key))
        except ObjectNotFoundError:  # deleted since it was listed
            return None
        return run_store.parsed(key, data, lambda document: ExecutionTrace(step, task, attempt, **document))

    with ThreadPoolExecutor(run_store.store.parallel_reads) as pool:
        return [trace for trace in pool.map(read, names) if trace is not None]
