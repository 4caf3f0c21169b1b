"""Follows a run that another process drives, by what its tasks write to the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from k8sflow.executors.base import Finished, Output, Started
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.earlier import list_executions, past_of, read_ended
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.retries import Again, Caught, Failed, decide
from k8sflow.storage.clones import read_commits
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import TaskResult, failed
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import recorded_result

_STREAMS: tuple[Literal["stdout"], Literal["stderr"]] = ("stdout", "stderr")
_PIECE_BYTES = 1 << 16
# A look at a wide run lists many objects, and is to take only a small part of the time.
_PAUSE_PER_LOOK = 10


# An execution: the step, the task's id, and the number of the attempt.
_Execution = tuple[str, str, int]


@dataclass
class _Followed:
    """An execution whose output is being shown.

    Args:
        task: The execution.
        is_over: Whether its end was seen; its last output may arrive a moment later.
        read: How many bytes of each stream were read.
    """

    task: TaskSpec
    is_over: bool = False
    read: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_STREAMS, 0))


class RunFollower:
    """Feeds an observer with a run's events, as its driver would.

    Tasks that had ended before are counted only; of those that run, the whole output is shown.

    Args:
        graph: The run's graph.
        run_store: Its records.
        observer: The observer.
        policies: Retries and catch, by step.
    """

    def __init__(
        self, graph: Graph, run_store: RunStore, observer: Observer, policies: Mapping[str, StepPolicy]
    ) -> None:
        self._graph = graph
        self._run_store = run_store
        self._observer = observer
        self._policies = policies
        self._failed: dict[TaskName, tuple[TaskSpec, TaskResult]] = {}
        self._open: dict[_Execution, _Followed] = {}
        self._closed: set[_Execution] = set()
        self._before: set[tuple[str, str]] = set()
        self._ready: set[TaskName] = set()
        self._foreaches: set[TaskName] = set()
        self.done_before = self._skip_ended()

    def follow(self, is_orphan: Callable[[], bool]) -> OutcomeRecord | None:
        """Follows the run until it has ended, and returns how; None if it has no driver any more.

        Args:
            is_orphan: Whether the run has no driver; called repeatedly.
        """
        least = self._run_store.store.poll_seconds
        pause = threading.Event()
        self._report_before(self._before)
        while True:
            started = time.monotonic()
            is_orphaned = is_orphan()
            outcome = self._run_store.read_run_outcome()
            self._look()
            if outcome is not None or is_orphaned:
                self._look()  # for the last output of tasks whose end was seen just now
                return outcome
            pause.wait(max(least, _PAUSE_PER_LOOK * (time.monotonic() - started)))

    def _skip_ended(self) -> int:
        """Passes over executions that have ended; returns how many tasks have a result."""
        _, self._closed, self._before = self._list()
        return len(self._before)

    def _look(self) -> None:
        seen, ended, committed = self._list()
        self._take_cloned(committed - self._before - {key[:2] for key in seen})
        self._start(sorted(key for key in seen - self._closed - self._open.keys() if key[:2] not in self._before))
        for key, followed in list(self._open.items()):
            self._report_output(followed)
            if followed.is_over:
                self._end(key)
            followed.is_over = key in ended or key[:2] in committed

    def _take_cloned(self, silent: set[tuple[str, str]]) -> None:
        """Counts the tasks that were cloned by now, of those that have a result and no execution."""
        tasks = sorted(silent)
        commits = read_commits(self._run_store, tasks)
        cloned = {task for task, found in zip(tasks, commits, strict=True) if found is not None and found.is_clone}
        self._before |= cloned
        self._report_before(cloned)

    def _report_before(self, tasks: Iterable[tuple[str, str]]) -> None:
        for _, found in groupby(sorted(tasks), key=lambda task: task[0]):
            self._observer.done_before([self._spec(step, task) for step, task in found])

    def _spec(self, step: str, task: str, attempt: int = 0) -> TaskSpec:
        name = TaskName.from_id(step, task, self._graph.depth(step))
        return TaskSpec(self._run_store.flow, self._run_store.run, name, attempt=attempt)

    def _list(self) -> tuple[set[_Execution], set[_Execution], set[tuple[str, str]]]:
        """The executions that wrote anything, those of them that have ended, and the tasks that have a result."""
        listing = list_executions(self._run_store, self._graph.nodes)
        seen = {
            (*task, attempt): has_ended
            for task, found in listing.attempts.items()
            for attempt, has_ended in found.items()
        }
        return set(seen), {key for key, has_ended in seen.items() if has_ended}, set(listing.committed)

    def _start(self, keys: Iterable[_Execution]) -> None:
        for _, found in groupby(keys, key=lambda key: key[0]):
            specs = {key: self._spec(*key) for key in found}
            self._open |= {key: _Followed(spec) for key, spec in specs.items()}
            self._open_foreaches(specs.values())
            by_name = groupby(specs.values(), key=lambda spec: spec.name)
            if fresh := [next(same) for name, same in by_name if name not in self._ready]:
                self._ready |= {spec.name for spec in fresh}
                self._observer.submitted(fresh)
            for spec in specs.values():
                self._end_earlier(spec)
                self._observer.event(Started(spec, f"attempt {spec.attempt}" if spec.attempt else "followed"))

    def _open_foreaches(self, specs: Iterable[TaskSpec]) -> None:
        """Reports the width of each foreach of which these tasks of one step are the first branches that are seen."""
        for spec in specs:
            step, path = spec.name.step, spec.name.path[:-1]
            split = next((name for name in self._graph[step].parents if self._graph[name].is_wide), None)
            if split is None or self._graph[step].is_join or (name := TaskName(split, path)) in self._foreaches:
                continue
            self._foreaches.add(name)
            commit = self._run_store.read_commit(split, name.id)
            if commit is None or commit.foreach is None:
                continue
            self._observer.opened(step, commit.foreach.width)
            branches = [self._spec(step, TaskName(step, (*path, n)).id) for n in range(commit.foreach.width)]
            ready = [each for each in branches if each.name not in self._ready and not self._was_before(each.name)]
            if ready and not commit.foreach.max_parallel:  # else not all of them are ready at once
                self._ready |= {each.name for each in ready}
                self._observer.submitted(ready)

    def _was_before(self, name: TaskName) -> bool:
        return (name.step, name.id) in self._before

    def _end_earlier(self, started: TaskSpec) -> None:
        """Ends the executions before one that has started, also where their end isn't recorded."""
        name = started.name
        for key in [(name.step, name.id, attempt) for attempt in range(started.attempt)]:
            if (before := self._open.get(key)) is not None:
                self._report_output(before)
                self._end(key)
        if (failed := self._failed.pop(name, None)) is not None:
            self._observer.retried(*failed, Again())  # by another driver, after a failure that was not its own

    def _report_output(self, followed: _Followed) -> None:
        name, attempt = followed.task.name, followed.task.attempt
        for stream in _STREAMS:
            if data := self._run_store.read_log(name.step, name.id, attempt, stream, followed.read[stream]):
                followed.read[stream] += len(data)
                for start in range(0, len(data), _PIECE_BYTES):
                    self._observer.event(Output(followed.task, stream, data[start : start + _PIECE_BYTES]))

    def _end(self, key: _Execution) -> None:
        task = self._open.pop(key).task
        self._closed.add(key)
        result = self._result_of(task)
        self._observer.event(Finished(task, result))
        if result.outcome.is_failure:
            self._report_decision(task, result)

    def _result_of(self, task: TaskSpec) -> TaskResult:
        """The result of an execution that is over."""
        step, name, attempt = task.name.step, task.name.id, task.attempt
        if (record := self._run_store.read_outcome(step, name, attempt)) is not None:
            return recorded_result(record)
        commit = self._run_store.read_commit(step, name)
        if commit is not None and commit.attempt == attempt:
            # Its process, or its store, died in the moment between the commit and the outcome.
            return TaskResult(Outcome.SUCCEEDED)
        lost = f"attempt {attempt} recorded no outcome; it was lost with its driver or node"
        return failed(Outcome.NODE_LOST, lost)

    def _report_decision(self, task: TaskSpec, result: TaskResult) -> None:
        """Reports the driver's decision about a failure: it makes it by the same records."""
        past = past_of(read_ended(self._run_store, task.name.step, task.name.id, range(task.attempt + 1)))
        policy = self._policies.get(task.name.step, StepPolicy())
        is_final = result.failure is not None and result.failure.is_final
        match decide(policy, result.outcome, past.failures if past is not None else {}, is_final=is_final):
            case Again() as again:
                self._observer.retried(task, result, again)
            case Caught(catch):
                self._observer.caught(task, result, catch)
            case Failed():
                self._failed[task.name] = (task, result)
