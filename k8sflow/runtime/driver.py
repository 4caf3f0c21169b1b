"""The driver: one loop that hands ready tasks to executors and acts on what they report.

It holds no state that it can't derive again from the store (invariant I5): a driver that goes on with a run takes
the commits that are there for tasks that have finished, and submits the rest.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from k8sflow.errors import RunError, StorageError
from k8sflow.executors.base import Executor, Finished, TaskEvent
from k8sflow.flow.graph import Graph
from k8sflow.runtime.scheduler import Scheduler, TaskGroup
from k8sflow.storage.records import OutcomeRecord, RunStore
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.runner import committed_result
from k8sflow.task.spec import TaskSpec

# How often a task is run again after failures of the infrastructure, which the user doesn't pay for.
INFRASTRUCTURE_RETRIES = 3
_RETRIED = {Outcome.PREEMPTED, Outcome.EVICTED, Outcome.NODE_LOST, Outcome.NEVER_STARTED}

# Where executors report to, from whatever thread: events, or the error that ends an executor.
Report = Callable[[TaskEvent | Exception], None]


class Observer(Protocol):
    """Somebody who is told what happens in a run, in the driver's thread."""

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Tasks of one step became ready."""

    def event(self, event: TaskEvent) -> None:
        """A task's event."""

    def retried(self, task: TaskSpec, result: TaskResult) -> None:
        """A failure of the infrastructure is followed by another execution."""


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
    """

    def __init__(
        self,
        graph: Graph,
        run_store: RunStore,
        *,
        executors: Callable[[Report], Mapping[str, Executor]],
        executor_of: Callable[[str], str],
        observers: Sequence[Observer],
    ) -> None:
        self._run_store = run_store
        self._scheduler = Scheduler(graph, run_store.run)
        self._inbox: queue.SimpleQueue[TaskEvent | Exception] = queue.SimpleQueue()
        self._executor_of = executor_of
        self._observers = observers
        self._committed: set[str] = set()  # as ``str(TaskName)``, which is what a listing tells
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
                self._committed = set(_committed_tasks(self._run_store))
            self._submit(self._scheduler.begin())
            outcome = self._loop()
        except BaseException as error:  # whatever ends the driver, no task outlives it
            self._cancel(error)
            raise
        if outcome.is_success:
            for executor in self._executors.values():
                executor.close()
            self._record(OutcomeRecord(Outcome.SUCCEEDED.value, time.time()))
        else:
            self._stop_all()
        return outcome

    def _loop(self) -> RunResult:
        while not self._scheduler.is_done:
            if not self._unfinished:
                raise RunError("the run has no task left, but has not reached its end.", cause="This is a bug.")
            event = self._inbox.get()
            if isinstance(event, Exception):
                raise event
            for observer in self._observers:
                observer.event(event)
            if isinstance(event, Finished):
                self._unfinished -= 1
                if failure := self._finished(event):
                    return failure
        return RunResult()

    def _finished(self, event: Finished) -> RunResult | None:
        result, task = event.result, event.task
        if result.outcome in _RETRIED and task.attempt < INFRASTRUCTURE_RETRIES:
            for observer in self._observers:
                observer.retried(task, result)
            self._hand_over([replace(task, attempt=task.attempt + 1)])
            return None
        if result.transition is None:
            self._record_failure(task, result)
            return RunResult(task, result)
        for group in self._scheduler.finished(task.name, result.transition):
            self._submit(group)
        return None

    def _submit(self, group: TaskGroup) -> None:
        """Hands over a group, less what an earlier driver's tasks have committed."""
        waiting = [group]
        while waiting:
            ready = waiting.pop()
            if not self._committed:
                self._hand_over(ready)
                continue
            rest = [task for task in ready if str(task.name) not in self._committed]
            if rest:
                self._hand_over(rest)
            for task in ready:
                if str(task.name) in self._committed:
                    result = committed_result(self._run_store, task)
                    if result is not None and result.transition is not None:
                        waiting += self._scheduler.finished(task.name, result.transition)

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
        for executor in self._executors.values():
            executor.cancel()

    def _record_failure(self, task: TaskSpec, result: TaskResult) -> None:
        summary = f"{task.name} failed"
        if result.diagnosis is not None:
            summary += f": {result.diagnosis.summary}"
        self._record(OutcomeRecord(result.outcome.value, time.time(), summary))

    def _record(self, record: OutcomeRecord) -> None:
        self._run_store.write_run_outcome(record)


def _committed_tasks(run_store: RunStore) -> list[str]:
    """The tasks of a run that have a commit, from one listing."""
    found = []
    for key in run_store.store.list_keys(f"{run_store.flow}/runs/{run_store.run}/tasks/"):
        *_, step, task, name = key.split("/")
        if name == "commit.json":
            found.append(f"{step}/{task}")
    return found
