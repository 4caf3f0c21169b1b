"""The moments of an execution that its own process sees: cheap to note, and stored only if the run is traced.

A fork has the moments of its parent: a task in a pod begins with those of its agent. A fork server takes those of the
process that starts it over (``take_over``), for the tasks that share a pod.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from k8sflow.errors import StorageError
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.trace import ExecutionTrace, write_execution
from k8sflow.task.spec import TaskSpec

Moment = Literal["process", "agent", "fetched", "shared", "forked", "entered", "began", "ended", "committed"]

_at: dict[str, float] = {}
_START_TIME_FIELD = 19  # of /proc/self/stat after the program's name: proc(5), field 22


def note(moment: Moment) -> None:
    """Notes that a moment is now."""
    _at[moment] = time.time()


def noted() -> dict[str, float]:
    """The moments that have been noted."""
    return dict(_at)


def take_over(moments: Mapping[str, float]) -> None:
    """Takes note of the moments of the process that has started this one."""
    _at.update(moments)


@contextlib.contextmanager
def of_step() -> Iterator[None]:
    """Notes the beginning and the end of the user's code, which is called in the block."""
    note("began")
    try:
        yield
    finally:
        note("ended")


def note_process() -> None:
    """Notes when this process started, before Python had imported anything, where the system tells."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_TIME_FIELD]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux, or /proc is hidden
        return
    _at["process"] = time.time() - age


def store(run_store: RunStore, spec: TaskSpec) -> None:
    """Stores the moments of an execution; a store that refuses them must not hide its result."""
    node, pod = os.environ.get("K8SFLOW_NODE", ""), os.environ.get("K8SFLOW_POD", "")
    trace = ExecutionTrace(spec.name.step, spec.name.id, spec.attempt, dict(_at), node, pod)
    try:
        write_execution(run_store, trace)
    except StorageError:
        return
