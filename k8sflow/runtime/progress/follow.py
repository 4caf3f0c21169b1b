"""Tells of a run that somebody else drives, by what its tasks leave in the store."""

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
from k8sflow.runtime.core.loop import Observer
from k8sflow.runtime.core.retries import Again, Caught, Failed, decide, read_past
from k8sflow.storage.clones import read_commits
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult, failed
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import recorded_result

_STREAMS: tuple[Literal["stdout"], Literal["stderr"]] = ("stdout", "stderr")
_PIECE_BYTES = 1 << 16
_FOLDER_PAUSE_SECONDS = 0.3
_BUCKET_PAUSE_SECONDS = 2.0
# A look at a wide run lists many objects: it is to take no more than a small part of the time.
_PAUSE_PER_LOOK = 10


@dataclass
class _Followed:
    """An execution whose output is being told.

    Args:
        task: The execution.
        is_over: Whether its end was seen; what it wrote last may come a moment later.
        read: How many bytes of each stream were told.
    """

    task: TaskSpec
    is_over: bool = False
    read: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_STREAMS, 0))


class Follower:
    """Tells an observer of a run as its driver would.

    Of tasks that had ended when it came it tells nothing; of those that run, all that they have printed.

    Args:
        graph: The run's graph.
        run_store: Its records.
        observer: Who is told.
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
        self._open: dict[tuple[str, str, int], _Followed] = {}
        self._told: set[tuple[str, str, int]] = set()
        self._before: set[tuple[str, str]] = set()
        self._ready: set[TaskName] = set()
        self.done_before = self._skip_ended()

    def follow(self, is_orphan: Callable[[], bool]) -> OutcomeRecord | None:
        """Tells until the run has ended, and how; None where nobody drives it any more.

        Args:
            is_orphan: Whether that is so; asked again and again.
        """
        is_bucket = self._run_store.store.url.startswith("s3://")
        least = _BUCKET_PAUSE_SECONDS if is_bucket else _FOLDER_PAUSE_SECONDS
        pause = threading.Event()
        self._tell_before(self._before)
        while True:
            began = time.monotonic()
            left_alone = is_orphan()
            outcome = self._run_store.read_run_outcome()
            self._look()
            if outcome is not None or left_alone:
                self._look()  # the last words of tasks whose end was seen just now
                return outcome
            pause.wait(max(least, _PAUSE_PER_LOOK * (time.monotonic() - began)))

    def _skip_ended(self) -> int:
        """Passes over what has ended already; how many tasks have a result."""
        seen, ended, committed = self._listed()
        self._told = {key for key in seen if key in ended}
        self._before = committed
        return len(committed)

    def _look(self) -> None:
        seen, ended, committed = self._listed()
        self._take_cloned(committed - self._before - {key[:2] for key in seen})
        self._begin(sorted(key for key in seen - self._told - self._open.keys() if key[:2] not in self._before))
        for key, followed in list(self._open.items()):
            self._tell_output(followed)
            if followed.is_over:
                self._end(key)
            followed.is_over = key in ended or key[:2] in committed

    def _take_cloned(self, silent: set[tuple[str, str]]) -> None:
        """Takes of tasks that have a result, and no execution that has left anything, those that were cloned by now."""
        tasks = sorted(silent)
        commits = read_commits(self._run_store, tasks)
        cloned = {task for task, found in zip(tasks, commits, strict=True) if found is not None and found.is_clone}
        self._before |= cloned
        self._tell_before(cloned)

    def _tell_before(self, tasks: Iterable[tuple[str, str]]) -> None:
        for _, found in groupby(sorted(tasks), key=lambda task: task[0]):
            self._observer.done_before([self._spec(step, task) for step, task in found])

    def _spec(self, step: str, task: str, attempt: int = 0) -> TaskSpec:
        name = TaskName.from_id(step, task, self._graph.depth(step))
        return TaskSpec(self._run_store.flow, self._run_store.run, name, attempt=attempt)

    def _listed(self) -> tuple[set[tuple[str, str, int]], set[tuple[str, str, int]], set[tuple[str, str]]]:
        """The executions that have left anything, those of them that have ended, and the tasks that have a result."""
        seen: set[tuple[str, str, int]] = set()
        ended: set[tuple[str, str, int]] = set()
        committed: set[tuple[str, str]] = set()
        for step, task, rest in self._run_store.task_keys():
            attempt, _, file = rest.partition("/")
            if step not in self._graph.nodes:  # an exit hook's
                continue
            if rest == "commit.json":
                committed.add((step, task))
            elif attempt.isdigit():
                seen.add((step, task, int(attempt)))
                if file == "outcome.json":
                    ended.add((step, task, int(attempt)))
        return seen, ended, committed

    def _begin(self, keys: Iterable[tuple[str, str, int]]) -> None:
        for _, found in groupby(keys, key=lambda key: key[0]):
            specs = {key: self._spec(*key) for key in found}
            self._open |= {key: _Followed(spec) for key, spec in specs.items()}
            by_name = groupby(specs.values(), key=lambda spec: spec.name)
            if fresh := [next(same) for name, same in by_name if name not in self._ready]:
                self._ready |= {spec.name for spec in fresh}
                self._observer.submitted(fresh)
            for spec in specs.values():
                self._leave_behind(spec)
                self._observer.event(Started(spec, f"attempt {spec.attempt}" if spec.attempt else "followed"))

    def _leave_behind(self, begun: TaskSpec) -> None:
        """Ends the executions before one that has begun, also where they have left no word of it."""
        name = begun.name
        for key in [(name.step, name.id, attempt) for attempt in range(begun.attempt)]:
            if (before := self._open.get(key)) is not None:
                self._tell_output(before)
                self._end(key)
        if (failed := self._failed.pop(name, None)) is not None:
            self._observer.retried(*failed, Again())  # by another driver, after what was no failure of its own

    def _tell_output(self, followed: _Followed) -> None:
        name, attempt = followed.task.name, followed.task.attempt
        for stream in _STREAMS:
            if data := self._run_store.read_log(name.step, name.id, attempt, stream, followed.read[stream]):
                followed.read[stream] += len(data)
                for start in range(0, len(data), _PIECE_BYTES):
                    self._observer.event(Output(followed.task, stream, data[start : start + _PIECE_BYTES]))

    def _end(self, key: tuple[str, str, int]) -> None:
        task = self._open.pop(key).task
        self._told.add(key)
        result = self._result_of(task)
        self._observer.event(Finished(task, result))
        if result.outcome.is_failure:
            self._tell_what_follows(task, result)

    def _result_of(self, task: TaskSpec) -> TaskResult:
        """How an execution ended that is over."""
        step, name, attempt = task.name.step, task.name.id, task.attempt
        if (record := self._run_store.read_outcome(step, name, attempt)) is not None:
            return recorded_result(record)
        commit = self._run_store.read_commit(step, name)
        if commit is not None and commit.attempt == attempt:
            # Its process, or its store, died in the moment between the commit and the outcome.
            return TaskResult(Outcome.SUCCEEDED)
        lost = f"attempt {attempt} left no word of its end: it died with its driver, or its node"
        return failed(Outcome.NODE_LOST, lost)

    def _tell_what_follows(self, task: TaskSpec, result: TaskResult) -> None:
        """Tells what the driver makes of a failure: it decides by the same records."""
        past = read_past(self._run_store, task.name.step, task.name.id, list(range(task.attempt + 1)))
        policy = self._policies.get(task.name.step, StepPolicy())
        match decide(policy, result.outcome, past.failures if past is not None else {}):
            case Again() as again:
                self._observer.retried(task, result, again)
            case Caught(catch):
                self._observer.caught(task, result, catch)
            case Failed():
                self._failed[task.name] = (task, result)
