"""The driver: one loop that hands ready tasks to executors and acts on what they report.

It holds no state that it can't derive again from the store (invariant I5): a driver that goes on with a run takes
the commits that are there for tasks that have finished, and submits the rest.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from k8sflow.errors import RunError, StorageError, SupersededError
from k8sflow.executors.base import Executor, Finished, TaskEvent
from k8sflow.flow.decorators.policy import Catch, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.runtime.core.clock import Clock, RealClock
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.core.retries import (
    INFRASTRUCTURE,
    Again,
    Caught,
    Failed,
    Left,
    Past,
    decide,
    look,
    read_past,
    read_past_together,
)
from k8sflow.runtime.core.scheduler import Scheduler, TaskGroup
from k8sflow.storage.clones import read_commits
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.catch import commit_caught
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import recorded_result, write_outcome

# Where executors report to, from whatever thread: events, or the error that ends an executor.
Report = Callable[[TaskEvent | Exception], None]
# No wait is longer, so that no clock and no queue is asked for more than it can count.
_LONGEST_WAIT_SECONDS = 3600.0
# How long a run that ends early waits for a store that can't be reached.
_CANCEL_PATIENCE_SECONDS = 5.0


class Observer(Protocol):
    """Somebody who is told what happens in a run, in the driver's thread."""

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Tasks of one step became ready."""

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Tasks of one step have results that are not of this driver: cloned ones, or those of a driver before it."""

    def event(self, event: TaskEvent) -> None:
        """A task's event."""

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """A failure is followed by another execution."""

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """A failure for good counts as done."""


@dataclass(order=True, frozen=True)
class _Delayed:
    """A task, or all that run together, that waits for its next execution; it holds no worker."""

    due: float
    number: int
    tasks: Sequence[TaskSpec] = field(compare=False)


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
        outlives: Whether the tasks of a step run on when their driver is dead, and are found again by the next one.
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
        outlives: Callable[[str], bool] = lambda _: True,
        clock: Clock | None = None,
    ) -> None:
        self._graph = graph
        self._run_store = run_store
        self._policies = policies or {}
        self._clock = clock or RealClock()
        self._scheduler = Scheduler(graph, run_store.run)
        self._inbox = Inbox()
        self._executor_of = executor_of
        self._observers = observers
        self._outlives = outlives
        self._left = Left()
        self._failures: dict[TaskName, Counter[Outcome]] = {}
        self._together: dict[TaskName, list[tuple[TaskSpec, TaskResult]]] = {}
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
            BrokenPipeError: Nobody reads any more what an observer prints, which cancels the run too.
            SupersededError: As an executor's error: what outlives its driver runs on.
            K8sflowError: An executor can't go on.
        """
        try:
            self._executors = self._make_executors(self._inbox.put)
            if go_on:
                self._left = look(self._run_store)
            outcome = self._submit(self._scheduler.begin()) or self._loop()
            if outcome.is_success:
                self._close()
                self._record(OutcomeRecord(Outcome.SUCCEEDED.value, time.time()))
        except SupersededError:
            self._close()
            raise
        except BaseException as error:  # whatever else ends the driver, no task outlives it
            self._cancel(error)
            if isinstance(error, KeyboardInterrupt) and self._has_end:
                return RunResult()  # it came too late: the last task had left its result
            raise
        if not outcome.is_success:
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
        self._hand_over(heapq.heappop(self._delayed).tasks)
        return None

    def _finished(self, task: TaskSpec, result: TaskResult) -> RunResult | None:
        if result.transition is None:
            self._note(task, result)
        ended = self._together.setdefault(task.first, [])
        ended.append((task, result))
        if len(ended) < task.nodes:
            return None  # those that know each other succeed, fail and run again as one
        del self._together[task.first]
        if any(found.transition is None for _, found in ended):
            outcome = _blamed(ended)[1].outcome
            self._failures.setdefault(task.first, Counter())[outcome] += 1
            return self._failed(ended)
        self._failures.pop(task.first, None)
        for each, found in ended:
            if found.transition is not None and (failure := self._go_on(each, found.transition)):
                return failure
        return None

    def _failed(self, ended: Sequence[tuple[TaskSpec, TaskResult]], since: float = 0.0) -> RunResult | None:
        """Acts on the failure, so many seconds ago, of a task or of all that run together; the run's end, if it is."""
        task, result = _blamed(ended)
        policy = self._policies.get(task.name.step, StepPolicy())
        is_final = result.diagnosis is not None and result.diagnosis.is_final
        match decide(policy, result.outcome, self._failures[task.first], is_final=is_final):
            case Again() as again:
                for observer, (each, found) in itertools.product(self._observers, ended):
                    observer.retried(each, found, again)
                due = self._clock.now() + max(0.0, again.pause_seconds - since)
                following = [replace(each, attempt=task.attempt + 1) for each, _ in ended]
                heapq.heappush(self._delayed, _Delayed(due, next(self._numbers), following))
            case Caught(catch):
                return self._catch(ended, result, catch)
            case Failed():
                self._record_failure(task, result)
                return RunResult(task, result)
        return None

    def _catch(
        self, ended: Sequence[tuple[TaskSpec, TaskResult]], failure: TaskResult, catch: Catch
    ) -> RunResult | None:
        for task, result in ended:
            done = result
            if result.transition is None:
                done = commit_caught(self._run_store, self._graph, task, failure, catch)
                for observer in self._observers:
                    observer.caught(task, failure, catch)
            if done.transition is not None and (end := self._go_on(task, done.transition)):
                return end
        return None

    def _go_on(self, task: TaskSpec, transition: Transition) -> RunResult | None:
        for group in self._scheduler.finished(task.name, transition):
            if failure := self._submit(group):
                return failure
        return None

    def _submit(self, group: TaskGroup) -> RunResult | None:
        """Hands over a group, less what an earlier driver's tasks have committed, or have failed with."""
        if not (self._left.committed or self._left.begun):
            self._hand_over(group)
            return None
        waiting: list[Sequence[TaskSpec]] = [group]
        while waiting:
            done: list[TaskSpec] = []
            for ready in waiting:
                rest = [task for task in ready if str(task.name) not in self._left.committed]
                if rest and rest[0].nodes > 1:
                    if failure := self._start_together(ready):
                        return failure
                    continue
                done += self._done_before(ready)
                if failure := self._take_up(rest):
                    return failure
            waiting = []
            commits = read_commits(self._run_store, [(task.name.step, task.name.id) for task in done])
            for task, commit in zip(done, commits, strict=True):
                if commit is not None:
                    transition = Transition(commit.steps, commit.width, commit.max_parallel)
                    waiting += self._scheduler.finished(task.name, transition)
        return None

    def _done_before(self, group: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The tasks of a group that have a result already, of which the observers are told."""
        found = [task for task in group if str(task.name) in self._left.committed]
        for observer in self._observers if found else ():
            observer.done_before(found)
        return found

    def _start_together(self, tasks: Sequence[TaskSpec]) -> RunResult | None:
        """Hands over tasks that know each other, those with a result too: the others would wait for them for ever.

        A second result of a task is dropped, as ever.
        """
        begun = [self._left.begun.pop(str(task.name)) for task in tasks if str(task.name) in self._left.begun]
        begun += [0] * any(str(task.name) in self._left.committed for task in tasks)
        last = max(begun, default=-1)
        ended = sorted({n for task in tasks for n in self._left.ended.pop(str(task.name), [])})
        past = read_past_together(self._run_store, tasks, ended)
        if past is not None:
            self._failures[tasks[0].first] = past.failures
            if past.last == last:
                return self._failed_before([replace(task, attempt=last) for task in tasks], past)
        self._hand_over([replace(task, attempt=last + 1) for task in tasks])
        return None

    def _take_up(self, tasks: Sequence[TaskSpec]) -> RunResult | None:
        """Hands over tasks of one step that have no result, each where an earlier driver has left it."""
        untouched = [task for task in tasks if str(task.name) not in self._left.begun]
        if untouched:
            self._hand_over(untouched)
        for task in tasks:
            if str(task.name) in self._left.begun and (failure := self._resume(task)):
                return failure
        return None

    def _resume(self, task: TaskSpec) -> RunResult | None:
        """Goes on with a task of which there were executions; those whose end is known count."""
        begun = self._left.begun.pop(str(task.name))
        past = read_past(self._run_store, task.name.step, task.name.id, self._left.ended.pop(str(task.name), []))
        if past is not None:
            self._failures[task.name] = past.failures
        if not self._outlives(task.name.step) and (past is None or begun > past.last):
            self._hand_over([replace(task, attempt=begun + 1)])  # it died with its driver
            return None
        if past is None:
            self._hand_over([task])
            return None
        outcome = Outcome(past.record.outcome)
        if not (outcome.is_paid_by_user or outcome in INFRASTRUCTURE):
            # What was cancelled has not failed by itself.
            self._hand_over([replace(task, attempt=past.last + 1)])
            return None
        return self._failed_before([replace(task, attempt=past.last)], past)

    def _failed_before(self, tasks: Sequence[TaskSpec], past: Past) -> RunResult | None:
        """Acts on the failure that an earlier driver has not acted on."""
        record = past.record
        result = recorded_result(record)
        for observer in self._observers:
            observer.submitted(tasks)
            for task in tasks:
                observer.event(Finished(task, result))
        return self._failed([(task, result) for task in tasks], max(0.0, self._clock.wall() - record.finished))

    def _hand_over(self, tasks: Sequence[TaskSpec]) -> None:
        self._unfinished += len(tasks)
        for observer in self._observers:
            observer.submitted(tasks)
        self._executors[self._executor_of(tasks[0].name.step)].submit(tasks)

    def _cancel(self, error: BaseException) -> None:
        self._run_store.store.limit_patience(_CANCEL_PATIENCE_SECONDS)
        self._stop_all()
        record = OutcomeRecord(Outcome.NEVER_STARTED.value, time.time(), str(error))
        if isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
            why = "cancelled" if isinstance(error, KeyboardInterrupt) else "nobody reads any more what the run prints"
            record = OutcomeRecord(Outcome.CANCELLED.value, time.time(), why)
            if self._has_end:
                record = OutcomeRecord(Outcome.SUCCEEDED.value, time.time())
        with contextlib.suppress(StorageError):  # which may be what ended the driver
            self._record(record)

    @property
    def _has_end(self) -> bool:
        """Whether the run has come to its end, as far as the store can be read."""
        with contextlib.suppress(StorageError):
            return self._run_store.read_commit(self._graph.end, TaskName(self._graph.end).id) is not None
        return False

    def _close(self) -> None:
        self._inbox.close()
        for executor in self._executors.values():
            executor.close()

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


def _blamed(ended: Sequence[tuple[TaskSpec, TaskResult]]) -> tuple[TaskSpec, TaskResult]:
    """The failure of those that run together: the others were ended because of it."""
    failures = [(task, result) for task, result in ended if result.transition is None]
    return next((found for found in failures if found[1].outcome is not Outcome.CANCELLED), failures[0])
