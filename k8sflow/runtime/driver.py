"""The driver: one loop that hands ready tasks to executors and acts on what they report.

It holds no state that it can't derive again from the store (invariant I5): a driver that goes on with a run takes
the commits that are there for tasks that have finished, and submits the rest.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from k8sflow.errors import RunError, StorageError
from k8sflow.executors.base import Executor, Finished, TaskEvent
from k8sflow.flow.attempts import Catch, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.runtime.attempts import INFRASTRUCTURE, Again, Caught, Failed, decide, read_past
from k8sflow.runtime.inbox import Inbox
from k8sflow.runtime.scheduler import Scheduler, TaskGroup
from k8sflow.storage.records import OutcomeRecord, RunStore
from k8sflow.task.caught import commit_caught
from k8sflow.task.outcome import Diagnosis, Outcome
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.runner import committed_result, write_outcome
from k8sflow.task.spec import TaskName, TaskSpec

# Where executors report to, from whatever thread: events, or the error that ends an executor.
Report = Callable[[TaskEvent | Exception], None]
# No wait is longer, so that no clock and no queue is asked for more than it can count.
_LONGEST_WAIT_SECONDS = 3600.0


class Observer(Protocol):
    """Somebody who is told what happens in a run, in the driver's thread."""

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Tasks of one step became ready."""

    def event(self, event: TaskEvent) -> None:
        """A task's event."""

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """A failure is followed by another execution."""

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """A failure for good counts as done."""


class Clock(Protocol):
    """The driver's time; a test has one of its own."""

    def now(self) -> float:
        """Seconds on a clock that is never set back."""

    def wall(self) -> float:
        """Seconds since 1970."""

    def wait(self, inbox: Inbox, seconds: float | None) -> TaskEvent | Exception | None:
        """The next event, or None where none came within so many seconds."""


class _RealClock:
    """The clock of this machine."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def wait(self, inbox: Inbox, seconds: float | None) -> TaskEvent | Exception | None:
        try:
            return inbox.get(timeout=seconds)
        except queue.Empty:
            return None


@dataclass(order=True, frozen=True)
class _Delayed:
    """A task that waits for its next execution; it holds no worker."""

    due: float
    number: int
    task: TaskSpec = field(compare=False)


@dataclass(frozen=True)
class RunResult:
    """How a run ended: the first failure that ended it, or None after a success."""

    failed: TaskSpec | None = None
    result: TaskResult | None = None

    @property
    def is_success(self) -> bool:
        """Whether the end step was reached."""
        return self.failed is None


class Driver:
    """Runs one run to its end.

    Args:
        graph: The flow's graph.
        run_store: The run's records.
        executors: Makes the executors; is given where they report to.
        executor_of: The name of a step's executor.
        observers: Who is told what happens.
        policies: Retries and catch, by step.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        graph: Graph,
        run_store: RunStore,
        *,
        executors: Callable[[Report], Mapping[str, Executor]],
        executor_of: Callable[[str], str],
        observers: Sequence[Observer],
        policies: Mapping[str, StepPolicy] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._graph = graph
        self._run_store = run_store
        self._policies = policies or {}
        self._clock = clock or _RealClock()
        self._scheduler = Scheduler(graph, run_store.run)
        self._inbox = Inbox()
        self._executor_of = executor_of
        self._observers = observers
        self._committed: set[str] = set()  # as ``str(TaskName)``, which is what a listing tells
        self._ended: dict[str, list[int]] = {}  # by the same, the executions whose end an earlier driver has seen
        self._failures: dict[TaskName, Counter[Outcome]] = {}
        self._delayed: list[_Delayed] = []
        self._numbers = itertools.count()
        self._unfinished = 0
        self._make_executors = executors
        self._executors: Mapping[str, Executor] = {}

    def run(self, *, go_on: bool = False) -> RunResult:
        """Runs until the end step has finished, or a task has failed for good.

        Args:
            go_on: Whether an earlier driver may have left commits.

        Raises:
            KeyboardInterrupt: The user cancelled; nothing of the run is left running.
            K8sflowError: An executor can't go on.
        """
        try:
            self._executors = self._make_executors(self._inbox.put)
            if go_on:
                self._committed, self._ended = _look(self._run_store)
            outcome = self._submit(self._scheduler.begin()) or self._loop()
        except BaseException as error:  # whatever ends the driver, no task outlives it
            self._cancel(error)
            raise
        if outcome.is_success:
            self._inbox.close()
            for executor in self._executors.values():
                executor.close()
            self._record(OutcomeRecord(Outcome.SUCCEEDED.value, time.time()))
        else:
            self._stop_all()
        return outcome

    def _loop(self) -> RunResult:
        while not self._scheduler.is_done:
            event = self._next_event()
            if event is None:
                continue
            if isinstance(event, Exception):
                raise event
            for observer in self._observers:
                observer.event(event)
            if isinstance(event, Finished):
                self._unfinished -= 1
                if failure := self._finished(event.task, event.result):
                    return failure
        return RunResult()

    def _next_event(self) -> TaskEvent | Exception | None:
        """What an executor reports; None where a task that waited was handed over instead."""
        if not self._delayed:
            if not self._unfinished:
                raise RunError("the run has no task left, but has not reached its end.", cause="This is a bug.")
            return self._clock.wait(self._inbox, None)
        left = self._delayed[0].due - self._clock.now()
        if left > 0:
            return self._clock.wait(self._inbox, min(left, _LONGEST_WAIT_SECONDS))
        self._hand_over([heapq.heappop(self._delayed).task])
        return None

    def _finished(self, task: TaskSpec, result: TaskResult) -> RunResult | None:
        if result.transition is None:
            self._note(task, result)
            self._failures.setdefault(task.name, Counter())[result.outcome] += 1
            return self._failed(task, result)
        self._failures.pop(task.name, None)
        return self._go_on(task, result.transition)

    def _failed(self, task: TaskSpec, result: TaskResult, since: float = 0.0) -> RunResult | None:
        """Acts on a failure that was so many seconds ago; the run's end, where it is that."""
        policy = self._policies.get(task.name.step, StepPolicy())
        match decide(policy, result.outcome, self._failures[task.name]):
            case Again() as again:
                for observer in self._observers:
                    observer.retried(task, result, again)
                due = self._clock.now() + max(0.0, again.pause_seconds - since)
                following = replace(task, attempt=task.attempt + 1)
                heapq.heappush(self._delayed, _Delayed(due, next(self._numbers), following))
            case Caught(catch):
                done = commit_caught(self._run_store, self._graph, task, result, catch)
                for observer in self._observers:
                    observer.caught(task, result, catch)
                if done.transition is not None:
                    return self._go_on(task, done.transition)
            case Failed():
                self._record_failure(task, result)
                return RunResult(task, result)
        return None

    def _go_on(self, task: TaskSpec, transition: Transition) -> RunResult | None:
        for group in self._scheduler.finished(task.name, transition):
            if failure := self._submit(group):
                return failure
        return None

    def _submit(self, group: TaskGroup) -> RunResult | None:
        """Hands over a group, less what an earlier driver's tasks have committed, or have failed with."""
        waiting = [group]
        while waiting:
            ready = waiting.pop()
            if not self._committed and not self._ended:
                self._hand_over(ready)
                continue
            rest = [task for task in ready if str(task.name) not in self._committed]
            untouched = [task for task in rest if str(task.name) not in self._ended]
            if untouched:
                self._hand_over(untouched)
            for task in rest:
                if str(task.name) in self._ended and (failure := self._resume(task)):
                    return failure
            for task in ready:
                if str(task.name) in self._committed:
                    result = committed_result(self._run_store, task)
                    if result is not None and result.transition is not None:
                        waiting += self._scheduler.finished(task.name, result.transition)
        return None

    def _resume(self, task: TaskSpec) -> RunResult | None:
        """Goes on with a task of which earlier executions are known to have ended, where they left off."""
        past = read_past(self._run_store, task.name.step, task.name.id, self._ended.pop(str(task.name)))
        if past is None:
            self._hand_over([task])
            return None
        self._failures[task.name] = past.failures
        last = replace(task, attempt=past.last)
        outcome = Outcome(past.record.outcome)
        if not (outcome.is_paid_by_user or outcome in INFRASTRUCTURE):
            # What was cancelled, or could not be stored, has not failed by itself.
            self._hand_over([replace(task, attempt=past.last + 1)])
            return None
        found = Diagnosis(outcome, past.record.summary, past.record.detail, past.record.resolution)
        since = self._clock.wall() - past.record.finished
        return self._failed(last, TaskResult(outcome, diagnosis=found), max(0.0, since))

    def _hand_over(self, tasks: Sequence[TaskSpec]) -> None:
        self._unfinished += len(tasks)
        for observer in self._observers:
            observer.submitted(tasks)
        self._executors[self._executor_of(tasks[0].name.step)].submit(tasks)

    def _cancel(self, error: BaseException) -> None:
        self._stop_all()
        cancelled = isinstance(error, KeyboardInterrupt)
        outcome = Outcome.CANCELLED if cancelled else Outcome.NEVER_STARTED
        record = OutcomeRecord(outcome.value, time.time(), "cancelled" if cancelled else str(error))
        with contextlib.suppress(StorageError):  # which may be what ended the driver
            self._record(record)

    def _stop_all(self) -> None:
        self._inbox.close()
        for executor in self._executors.values():
            executor.cancel()

    def _note(self, task: TaskSpec, result: TaskResult) -> None:
        """Writes how an execution failed, where it could not do so itself: the next driver has to count it."""
        name = task.name
        try:
            if self._run_store.read_outcome(name.step, name.id, task.attempt) is None:
                write_outcome(self._run_store, task, result)
        except StorageError:
            # Then it is counted by this driver alone.
            return

    def _record_failure(self, task: TaskSpec, result: TaskResult) -> None:
        summary = f"{task.name} failed"
        if result.diagnosis is not None:
            summary += f": {result.diagnosis.summary}"
        self._record(OutcomeRecord(result.outcome.value, time.time(), summary))

    def _record(self, record: OutcomeRecord) -> None:
        self._run_store.write_run_outcome(record)


def _look(run_store: RunStore) -> tuple[set[str], dict[str, list[int]]]:
    """The tasks of a run that have a commit, and the ended executions of those that have none, from one listing."""
    committed: set[str] = set()
    ended: dict[str, list[int]] = {}
    for key in run_store.store.list_keys(f"{run_store.flow}/runs/{run_store.run}/tasks/"):
        *_, first, second, third, name = key.split("/")
        if name == "commit.json":
            committed.add(f"{second}/{third}")
        elif name == "outcome.json":
            ended.setdefault(f"{first}/{second}", []).append(int(third))
    return committed, {name: attempts for name, attempts in ended.items() if name not in committed}
