"""Follows a run by listings: what changed since a page last asked, without a request for each task.

The ends of tasks are names of objects, of which one listing shows a thousand. Only executions that have no end, or that
had others before them, are looked at by themselves, and each of their records is read once.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from k8sflow.client import Run
from k8sflow.client.logs import STREAMS
from k8sflow.errors import K8sflowError
from k8sflow.storage.clones import cloned_ends
from k8sflow.storage.ends import TaskEnd
from k8sflow.storage.layout import task_order
from k8sflow.storage.log_times import SUFFIX
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.ui.expected import Expectation
from k8sflow.ui.order import ready_times
from k8sflow.ui.reads import read_each
from k8sflow.ui.traced import TraceReader

# The objects that a task may have. A bucket lists a thousand at a time, so listing a step takes a request for every 170
# tasks; where fewer of them are to be looked at, each is listed by itself.
_KEYS_OF_TASK, _KEYS_OF_LISTING = 6, 1000
_MOST_ERRORS = 3
_TIMES = tuple(f"{stream}{SUFFIX}" for stream in STREAMS)
_SETTLED_SECONDS = 5.0
_Key = tuple[str, str]
_Name = TypeVar("_Name")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Execution:
    """An execution that ended without a result.

    Args:
        attempt: Its number.
        outcome: How it ended.
        started: When its output began, in seconds since 1970; None if unknown.
        finished: When it ended.
        summary: What happened.
    """

    attempt: int
    outcome: str
    started: float | None
    finished: float
    summary: str = ""


@dataclass(frozen=True)
class TaskRow:
    """A task.

    Args:
        step: Its step.
        task: Its id.
        state: ``running``, ``retrying``, ``succeeded``, ``caught``, ``cloned``, ``failed``, or ``lost`` if the run has
            ended without its end.
        attempt: The execution that counts.
        ready: When all tasks before it had ended; None if unknown.
        launched: When its process or pod was started, where the run is traced; None elsewhere.
        started: When its step was called; of one that runs, when its output began; None if unknown.
        finished: When it ended.
        memory_bytes: The peak of its memory.
        cpu_seconds: Its CPU time.
        failures: The executions that ended without a result.
    """

    step: str
    task: str
    state: str
    attempt: int = 0
    ready: float | None = None
    launched: float | None = None
    started: float | None = None
    finished: float | None = None
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    failures: tuple[Execution, ...] = ()

    def to_list(self, steps: Mapping[str, int]) -> list[object]:
        """The row as the page's script reads it.

        Args:
            steps: The number of each step.
        """
        failures = [list(asdict(each).values()) for each in self.failures]
        times = [
            None if at is None else round(at, 3) for at in (self.ready, self.launched, self.started, self.finished)
        ]
        used = [self.memory_bytes, self.cpu_seconds]
        return [steps[self.step], self.task, self.state, self.attempt, *times, *used, failures]


@dataclass
class _Seen:
    """The known executions of a task without an end, or with several of them."""

    attempts: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    timed: set[tuple[int, str]] = field(default_factory=set)  # executions with the streams that have marks
    has_commit: bool = False


class RunReader:
    """Follows one run; safe for threads, and reads the store once for all who ask.

    Args:
        run: The run.

    Raises:
        StorageError: Its record can't be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.run_store: RunStore = run.run_store
        self.record: RunRecord = run.record
        self.outcome: OutcomeRecord | None = None
        self.status = "running"
        self.error = ""
        self.version = 0
        self.steps = {step: number for number, step in enumerate(self.record.steps)}
        self._expectation = Expectation(self.run_store, self.record.graph)
        self._rows: dict[_Key, tuple[int, TaskRow]] = {}
        self._ends: dict[_Key, TaskEnd] = {}
        self._clones: set[_Key] = set()
        self._has_clones = self.record.origin_run_id is not None  # and they were not read yet
        self._errors: list[str] = []
        self._started: dict[tuple[str, str, int], float | None] = {}
        self._failures: dict[tuple[str, str, int], Execution] = {}
        self._seen: dict[_Key, _Seen] = {}
        self._trace = TraceReader(self.run_store) if self.record.is_traced else None
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._settled_after: float | None = None

    @property
    def poll_seconds(self) -> float:
        """The seconds after which a page asks again."""
        return min(max(self.run_store.store.poll_seconds, 0.3), 2.0)

    @property
    def oldest_seconds(self) -> float:
        """The greatest age of what is shown: less than a page waits, which asks at its own times."""
        return self.poll_seconds / 2

    @property
    def expected(self) -> Mapping[str, int]:
        """The number of tasks that each step will have, as far as it is known."""
        return self._expectation.counts

    @property
    def has_ended(self) -> bool:
        """True if nothing more is to be expected, unless the run is continued."""
        return self.status != "running"

    def is_deleted(self) -> bool:
        """True if the run was deleted."""
        return not self.run_store.store.exists(f"{self.run_store.prefix}/run.json")

    def poll(self) -> None:
        """Reads what is new, unless that was done a moment ago. What can't be read is in ``error``."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at < self.oldest_seconds:
                return
            try:
                self._poll()
                self.error = " ".join(list(dict.fromkeys(self._errors))[:_MOST_ERRORS])
            except K8sflowError as error:
                self.error = str(error)
            self._read_at = time.monotonic()

    def changed(self, since: int) -> list[TaskRow]:
        """The tasks that changed after a version, in the order of the source and of the branches."""
        found = [row for version, row in list(self._rows.values()) if version > since]
        return sorted(found, key=lambda row: (self.steps[row.step], task_order(row.task)))

    def row(self, step: str, task: str) -> TaskRow | None:
        """A task; None if it was not seen yet."""
        _, found = self._rows.get((step, task), (0, None))
        return found

    def rows(self) -> list[TaskRow]:
        """All tasks."""
        return self.changed(0)

    def counts(self) -> dict[str, Counter[str]]:
        """For each step that has started, the number of its tasks in each state."""
        found: dict[str, Counter[str]] = {}
        for _, row in list(self._rows.values()):
            found.setdefault(row.step, Counter())[row.state] += 1
        return found

    # ------------------------------------------------------------------ reading the store

    def _poll(self) -> None:
        outcome = self.run_store.read_run_outcome()
        if outcome is not None and outcome == self.outcome and self._is_settled():
            return
        if outcome != self.outcome:  # the end of a run that was continued is another one
            self._settled_after = None
        self.outcome = outcome
        self.status = self._status()
        self._errors = []
        try:
            self._read_ends()
            for step in self.steps:
                self._read_step(step)
            self._errors += self._expectation.update(self._ends)
            if self._trace is not None:
                self._trace.poll()
        finally:
            self._update()

    def _status(self) -> str:
        if self.outcome is not None:
            name = self.outcome.outcome.value
            return name if name in {"succeeded", "cancelled"} else "failed"
        return "no driver" if self.run.has_dead_driver else "running"

    def _is_settled(self) -> bool:
        """True if the store was read long enough after the end for everything to be there."""
        if self._settled_after is None:
            self._settled_after = time.monotonic() + _SETTLED_SECONDS
        return time.monotonic() > self._settled_after

    def _read_ends(self) -> None:
        """Reads the ends of tasks; those of clones once, when all are written."""
        self._ends.update(self._by_key(self.run_store.all_ends()))
        if self._has_clones and (cloned := cloned_ends(self.run_store)) is not None:
            self._has_clones = False
            found = self._by_key(cloned)
            self._clones |= set(found)
            self._ends.update({key: end for key, end in found.items() if key not in self._ends})

    def _by_key(self, ends: Mapping[str, Mapping[str, TaskEnd]]) -> dict[_Key, TaskEnd]:
        return {
            (step, task): end for step, of_step in ends.items() if step in self.steps for task, end in of_step.items()
        }

    def _read_step(self, step: str) -> None:
        """Looks at the executions of a step's tasks that have no end, or had others before."""
        done = {task: end for (name, task), end in self._ends.items() if name == step}
        again = {task for task, end in done.items() if end.attempt and (step, task) not in self._clones}
        again = {task for task in again if (step, task) not in self._seen or not self._seen[step, task].has_commit}
        expected = self.expected.get(step)
        there = set() if expected is not None and len(done) >= expected else self._task_ids(step)
        waiting = (there - done.keys()) | again
        if not waiting:
            return
        is_folder = self.run_store.store.folder is not None
        if is_folder or len(waiting) * _KEYS_OF_LISTING < max(len(there), len(done)) * _KEYS_OF_TASK:
            found = dict(self._each(lambda task: self._look(f"{self.run_store.prefix}/tasks/{step}/{task}/"), waiting))
        else:
            found = self._look_at_step(step, waiting)
        self._seen.update({(step, task): seen for task, seen in found.items()})
        committed = [(step, task) for task, seen in found.items() if seen.has_commit and (step, task) not in self._ends]
        for key, commit in self._each(lambda key: self.run_store.read_commit(*key), committed):
            if commit is not None:
                self._ends[key] = TaskEnd.of(commit)
                self._clones |= {key} if commit.origin else set()
        self._read_executions(step, found)

    def _each(self, read: Callable[[_Name], _Item], names: Iterable[_Name]) -> list[tuple[_Name, _Item]]:
        """Reads records by their names; keeps the errors of those that can't be read."""
        found, errors = read_each(self.run_store.store, read, names)
        self._errors += errors
        return found

    def _task_ids(self, step: str) -> set[str]:
        folder = self.run_store.store.folder
        if folder is None:
            return set(self.run_store.store.list_folders(f"{self.run_store.prefix}/tasks/{step}/"))
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(folder / self.run_store.prefix / "tasks" / step) as entries,
        ):
            return {entry.name for entry in entries if entry.is_dir()}
        return set()

    def _look(self, prefix: str) -> _Seen:
        seen = _Seen()
        for key in self.run_store.store.list_keys(prefix):
            _note(seen, key.removeprefix(prefix))
        return seen

    def _look_at_step(self, step: str, wanted: set[str]) -> dict[str, _Seen]:
        prefix = f"{self.run_store.prefix}/tasks/{step}/"
        found: dict[str, _Seen] = {}
        for key in self.run_store.store.list_keys(prefix):
            task, _, name = key.removeprefix(prefix).partition("/")
            if task in wanted:
                _note(found.setdefault(task, _Seen()), name)
        return found

    def _read_executions(self, step: str, found: Mapping[str, _Seen]) -> None:
        """Reads the outcomes and the first times of executions, each once."""
        ended = [(step, task, attempt) for task, seen in found.items() for attempt in seen.ended]
        for key, failure in self._each(self._failure, (key for key in ended if key not in self._failures)):
            if failure is not None:
                self._failures[key] = failure
        last = [(step, task, max(seen.attempts, default=0)) for task, seen in found.items() if seen.attempts]
        unknown = (key for key in last if key not in self._started and key[:2] not in self._ends)
        for key, started in self._each(self._first_time, unknown):
            if started is not None:
                self._started[key] = started

    def _failure(self, key: tuple[str, str, int]) -> Execution | None:
        try:
            outcome = self.run_store.read_outcome(*key)
        except K8sflowError as error:
            return Execution(key[2], "unreadable", self._first_time(key), 0.0, str(error))
        if outcome is None:
            return None
        return Execution(key[2], outcome.outcome.value, self._first_time(key), outcome.finished, outcome.summary)

    def _first_time(self, key: tuple[str, str, int]) -> float | None:
        """The time of an execution's first output, from the marks that a listing has shown."""
        timed = self._seen[key[:2]].timed
        streams = [stream for stream in STREAMS if (key[2], f"{stream}{SUFFIX}") in timed]
        return min(
            (mark.at for stream in streams for mark in self.run_store.read_marks(*key, stream)[:1]), default=None
        )

    # ------------------------------------------------------------------ the tasks

    def _update(self) -> None:
        ready = ready_times(self.record.graph, self.record.created, self._ends)
        found = {**dict.fromkeys(self._seen), **dict.fromkeys(self._ends)}
        version, is_new = self.version + 1, False
        for key in found:
            row = self._row(key, ready(key))
            if row is not None and (key not in self._rows or self._rows[key][1] != row):
                self._rows[key] = (version, row)
                is_new = True
        if is_new:  # a page that asks before sees the rest at its next look
            self.version = version

    def _row(self, key: _Key, ready: float | None) -> TaskRow | None:
        """The row of a task; None if it has not even an execution."""
        seen, end = self._seen.get(key, _Seen()), self._ends.get(key)
        found = (self._failures.get((*key, attempt)) for attempt in sorted(seen.ended))
        failures = tuple(each for each in found if each is not None and each.outcome != "succeeded")
        if end is not None:
            row = TaskRow(*key, "caught" if end.is_caught else "succeeded", end.attempt, ready, failures=failures)
            row = replace(row, started=end.started, finished=end.finished)
            if end.usage is not None:
                row = replace(row, memory_bytes=end.usage.memory_bytes, cpu_seconds=end.usage.cpu_seconds)
            if key in self._clones:
                return replace(row, state="cloned", ready=None)
            return replace(row, launched=self._launched(key, end.attempt))
        if not seen.attempts:
            return None
        attempt = max(seen.attempts)
        failed = self._failures.get((*key, attempt))
        row = TaskRow(*key, "running", attempt, ready, self._launched(key, attempt), failures=failures)
        if failed is None:
            state = "lost" if self.has_ended else "running"
            return replace(row, state=state, started=self._started.get((*key, attempt)))
        state = "failed" if self.has_ended else "retrying"
        return replace(row, state=state, started=failed.started, finished=failed.finished)

    def _launched(self, key: _Key, attempt: int) -> float | None:
        return None if self._trace is None else self._trace.launched(*key, attempt)


def _note(seen: _Seen, name: str) -> None:
    """Notes an object of a task, by its name below the task."""
    if name == "commit.json":
        seen.has_commit = True
        return
    attempt, _, file = name.partition("/")
    if attempt.isdecimal():
        seen.attempts.add(int(attempt))
        if file == "outcome.json":
            seen.ended.add(int(attempt))
        elif file in _TIMES:
            seen.timed.add((int(attempt), file))
