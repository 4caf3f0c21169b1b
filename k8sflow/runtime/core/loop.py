"""The one loop that drives tasks: performs the actions of a state, and feeds it with what executors report.

It keeps nothing that the store doesn't hold too (invariant I5): the driver that takes a run over counts the results
that exist for tasks that have finished, and submits the rest.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from k8sflow.debug_log import DebugLog
from k8sflow.errors import AccessError, K8sflowError, LoginEndedError, RunCancelledError, StorageError, SupersededError
from k8sflow.executors.base import Executor, Finished, Report
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.actions import (
    Action,
    CatchCommitted,
    CatchFailure,
    DoneBefore,
    End,
    Event,
    FailedBefore,
    Opened,
    PauseOver,
    Record,
    Retry,
    RunEnd,
    RunResult,
    Start,
    Submit,
)
from k8sflow.runtime.core.clock import Clock, RealClock
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.core.run_state import State
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.usage import Usage, together
from k8sflow.task.catch_commit import commit_caught
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import write_outcome

if TYPE_CHECKING:
    from k8sflow.runtime.core.result_cache import ResultCache

# No wait is longer, so that no clock and no queue is asked for more than it can count.
_LONGEST_WAIT_SECONDS = 3600.0
# How long a run that ends early waits for a store that can't be reached.
_CANCEL_PATIENCE_SECONDS = 5.0
_log = DebugLog(__name__)


@dataclass(order=True, frozen=True)
class _Paused:
    """A task, or all that run together, that waits for its next execution; it holds no worker."""

    due: float
    number: int
    tasks: Sequence[TaskSpec] = field(compare=False)


class Loop:
    """Drives a run, or a single task, to its end.

    Args:
        graph: The flow's graph.
        run_store: The run's records.
        state: Makes the state; called when the executors exist.
        executors: Makes the executors, by name, each of which reports to its argument.
        executor_of: The name of a step's executor.
        observer: Watches the run.
        clock: The time.
        cache: Takes results of earlier runs; None if no step has ``@cache``.
    """

    def __init__(
        self,
        graph: Graph,
        run_store: RunStore,
        *,
        state: Callable[[], State],
        executors: Callable[[Report], Mapping[str, Executor]],
        executor_of: Callable[[str], str],
        observer: Observer,
        clock: Clock | None = None,
        cache: ResultCache | None = None,
    ) -> None:
        self._graph = graph
        self._run_store = run_store
        self._make_state = state
        self._make_executors = executors
        self._executor_of = executor_of
        self._observer = observer
        self._clock = clock or RealClock()
        self._cache = cache
        self._inbox = Inbox()
        self._executors: Mapping[str, Executor] = {}
        self._paused: list[_Paused] = []
        self._numbers = itertools.count()
        self._usage: Mapping[str, Usage] = {}

    def run(self) -> RunResult:
        """Runs until the end step has finished, or a task has failed for good.

        Raises:
            KeyboardInterrupt: The user cancelled; nothing of the run still runs.
            BrokenPipeError: The reader of an observer's output has closed it, which cancels the run too.
            RunCancelledError: Another person cancelled; nothing of the run still runs.
            SupersededError: As an executor's error: tasks that outlive their driver keep running.
            LoginEndedError: As an executor's error: its tasks can't be ended, and keep running.
            K8sflowError: An executor can't continue.
        """
        try:
            self._executors = self._make_executors(self._inbox.put)
            result = self._drive(self._make_state())
            if result.is_success:
                self._close()
                self._record_end(OutcomeRecord(Outcome.SUCCEEDED, time.time()))
        except (SupersededError, LoginEndedError):
            self._close()
            raise
        except BaseException as error:  # whatever else ends the loop, no task outlives it
            self._cancel(error)
            if isinstance(error, KeyboardInterrupt) and self._has_end:
                return RunResult(
                    RunEnd.SUCCEEDED, usage=self._usage
                )  # the signal came too late: the last task had its result
            raise
        return replace(result if result.is_success else self._end_rest(result), usage=self._usage)

    def _end_rest(self, result: RunResult) -> RunResult:
        """Ends what still runs after a failure, and returns the result, with the error if that can't be ended."""
        try:
            try:
                self._leave(lambda executor: executor.end())
            except KeyboardInterrupt:  # the user doesn't want to wait
                self._stop_all()
        except K8sflowError as error:
            return replace(result, unended=error)
        return result

    def _drive(self, state: State) -> RunResult:
        event: Event | None = Start(self._clock.wall())
        while True:
            actions = deque(state.handle(event) if event is not None else ())
            while actions:
                action = actions.popleft()
                if isinstance(action, End):
                    self._record_failure(action.result)
                    return action.result
                if isinstance(action, CatchFailure):
                    actions.extendleft(reversed(state.handle(self._commit_caught(action))))
                elif isinstance(action, Submit):
                    actions.extendleft(reversed(self._submit(state, action.tasks)))
                else:
                    self._perform(action)
            event = self._next_event()

    def _next_event(self) -> Event | None:
        """The next event; None where nothing happened for a while, or nothing that matters to the state."""
        if self._paused and (remaining := self._paused[0].due - self._clock.now()) <= 0:
            return PauseOver(heapq.heappop(self._paused).tasks)
        event = self._clock.wait(self._inbox, min(remaining, _LONGEST_WAIT_SECONDS) if self._paused else None)
        if isinstance(event, Exception):
            raise event
        if event is None:
            return None
        if isinstance(event, Finished) and event.result.outcome is Outcome.CANCELLED:
            self._raise_if_cancelled()
        self._observer.event(event)
        if isinstance(event, Finished):
            _log.debug("%s, attempt %d: %s.", event.task.name, event.task.attempt, event.result.outcome.value)
        return event if isinstance(event, Finished) else None

    def _raise_if_cancelled(self) -> None:
        """Asks whether a task's Job was deleted because someone has cancelled the run.

        Raises:
            RunCancelledError: Someone has.
        """
        if (request := self._run_store.read_cancel_request()) is not None:
            raise RunCancelledError(request.summary)

    def _perform(self, action: Action) -> None:
        match action:
            case Opened(step, width):
                self._observer.opened(step, width)
            case DoneBefore(tasks):
                self._observer.done_before(tasks)
            case FailedBefore(tasks, result):
                self._observer.submitted(tasks)
                for task in tasks:
                    self._observer.event(Finished(task, result))
            case Record(task, result):
                self._record(task, result)
            case Retry(ended, again, pause_seconds, tasks):
                _log.debug("%s runs again in %.1f s as attempt %d.", tasks[0].name, pause_seconds, tasks[0].attempt)
                for task, result in ended:
                    self._observer.retried(task, result, again)
                due = self._clock.now() + pause_seconds
                heapq.heappush(self._paused, _Paused(due, next(self._numbers), tasks))

    def _submit(self, state: State, tasks: Sequence[TaskSpec]) -> list[Action]:
        """Passes tasks to their executor; returns the actions that follow where results of earlier runs are taken."""
        _log.debug("%s and %d more are submitted.", tasks[0].name, len(tasks) - 1)
        self._observer.submitted(tasks)
        executor, actions = self._executors[self._executor_of(tasks[0].name.step)], list[Action]()
        for taken, rest in [([], tasks)] if self._cache is None else self._cache.take(tasks):
            if rest:
                executor.submit(rest)
            for each in taken:
                self._observer.cached(each)
                actions += state.handle(Finished(each.task, each.result))
        return actions

    def _commit_caught(self, action: CatchFailure) -> CatchCommitted:
        done = commit_caught(self._run_store, self._graph, action.task, action.failure, action.catch)
        self._observer.caught(action.task, action.failure, action.catch)
        return CatchCommitted(action.task, done)

    def _cancel(self, error: BaseException) -> None:
        _log.debug("The run ends early: %r", error)
        self._run_store.store.limit_patience(_CANCEL_PATIENCE_SECONDS)
        self._stop_all()
        record = OutcomeRecord(Outcome.NEVER_STARTED, time.time(), str(error))
        if isinstance(error, (KeyboardInterrupt, BrokenPipeError, RunCancelledError)):
            why = "stdout was closed" if isinstance(error, BrokenPipeError) else str(error) or "cancelled"
            record = OutcomeRecord(Outcome.CANCELLED, time.time(), why)
            if self._has_end:
                record = OutcomeRecord(Outcome.SUCCEEDED, time.time())
        with contextlib.suppress(StorageError, AccessError):  # which may be what ended the loop
            self._record_end(record)

    @property
    def _has_end(self) -> bool:
        """True if the end step has a result, as far as the store can be read."""
        with contextlib.suppress(StorageError, AccessError):
            return self._run_store.read_commit(self._graph.end, TaskName(self._graph.end).id) is not None
        return False

    def _close(self) -> None:
        self._leave(lambda executor: executor.close())

    def _stop_all(self) -> None:
        self._leave(lambda executor: executor.cancel())

    def _leave(self, how: Callable[[Executor], None]) -> None:
        """Leaves every executor, even if one of them raises."""
        self._inbox.close()
        with contextlib.ExitStack() as calls:
            for executor in reversed([*self._executors.values()]):
                calls.callback(how, executor)

    def _record(self, task: TaskSpec, result: TaskResult) -> None:
        """Writes how an execution failed, where it could not do so itself: the next driver has to count it."""
        name = task.name
        with contextlib.suppress(StorageError, AccessError):  # then it is counted by this driver alone
            if self._run_store.read_outcome(name.step, name.id, task.attempt) is None:
                write_outcome(self._run_store, task, result)

    def _record_failure(self, found: RunResult) -> None:
        """Writes how the run ended, where a task has failed for good."""
        if found.failed is None or found.result is None:
            return
        summary = f"{found.failed.name} failed"
        if found.result.failure is not None:
            summary += f": {found.result.failure.summary}"
        self._record_end(OutcomeRecord(found.result.outcome, time.time(), summary))

    def _record_end(self, record: OutcomeRecord) -> None:
        with contextlib.suppress(StorageError, AccessError):  # the outcome matters more
            self._usage = self._run_store.usage()
        record = replace(record, usage=together(self._usage.values()))
        self._run_store.write_run_outcome(record, self._graph.end)
