"""What a FlowRun's status tells of a run: counted from the driver's events, without the API."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from k8sflow.executors.base import Finished, Queued, Started, TaskEvent
from k8sflow.flow.decorators.policy import Catch
from k8sflow.kubernetes.flowrun import Phase, TaskCounts, message_of, timestamp
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.runtime.core.loop import RunResult
from k8sflow.runtime.core.retries import Again
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec


class Progress:
    """The counters of a run, from what the driver tells: fed in its thread, read in another.

    Args:
        started_at: When its first driver started.
    """

    def __init__(self, started_at: str) -> None:
        self._lock = threading.Lock()
        self._counts = TaskCounts()
        self._running: set[TaskName] = set()
        self._again: set[TaskName] = set()
        self._started_at = started_at
        self._waiting: tuple[TaskName, str] | None = None
        self._notice = ""
        self._notes: list[str] = []

    def notice(self, text: str) -> None:
        """Takes something about the run as a whole to show; an empty text takes it back."""
        self._notice = text

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Counts tasks that became ready; another execution of a task is no other task."""
        names = {task.name for task in group}
        self._add(total=len(names - self._again))
        self._again -= names

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Counts tasks that were cloned, or that an earlier driver has seen to the end."""
        self._add(total=len(tasks), done=len(tasks))

    def event(self, event: TaskEvent) -> None:
        """Counts a task's event."""
        match event:
            case Started(task):
                self._running.add(task.name)
                self._forget_waiting(task.name)
                self._add()
            case Finished(task, result):
                self._running.discard(task.name)
                self._forget_waiting(task.name)
                if result.note:
                    self._notes.append(f"{task.name}: {result.note}")
                is_done = result.outcome is Outcome.SUCCEEDED
                self._add(done=int(is_done), failed=int(not is_done))
            case Queued(task, reason) if reason:
                self._waiting = (task.name, f"{task.name} waits: {reason}")
            case _:
                pass

    def retried(self, task: TaskSpec, result: TaskResult, _again: Again) -> None:
        """Takes back an end after which the task runs again."""
        self._again.add(task.name)
        is_done = result.outcome is Outcome.SUCCEEDED
        self._add(done=-int(is_done), failed=-int(not is_done))

    def caught(self, _task: TaskSpec, _result: TaskResult, _catch: Catch) -> None:
        """Counts a failure that @catch has taken as done."""
        self._add(done=1, failed=-1)

    def status(self) -> Manifest:
        """The status of a run that goes on."""
        with self._lock:
            counts = self._counts
        waiting = self._waiting
        return {
            "phase": Phase.RUNNING.value,
            "message": message_of(self._notice, waiting[1] if waiting is not None else ""),
            "tasks": counts.to_document(),
            "startedAt": self._started_at,
        }

    def final_status(self, result: RunResult | None, now: float) -> Manifest:
        """The status of a run that ended with ``result``, or was cancelled."""
        phase, message = _end(result)
        message = message_of(message, *self._notes)
        tasks = replace(self._counts, running=0).to_document()
        return {**self.status(), "phase": phase.value, "message": message, "tasks": tasks, "finishedAt": timestamp(now)}

    def _add(self, total: int = 0, done: int = 0, failed: int = 0) -> None:
        counts = self._counts
        with self._lock:
            self._counts = TaskCounts(
                counts.total + total, len(self._running), counts.done + done, counts.failed + failed
            )

    def _forget_waiting(self, name: TaskName) -> None:
        if self._waiting is not None and self._waiting[0] == name:
            self._waiting = None


def _end(result: RunResult | None) -> tuple[Phase, str]:
    if result is None:
        return Phase.CANCELLED, "the run was cancelled."
    if result.failed is None or result.result is None:
        return Phase.SUCCEEDED, ""
    outcome, diagnosis = result.result.outcome, result.result.diagnosis
    summary = f"{result.failed.name} failed ({outcome.value.replace('_', ' ')})"
    if diagnosis is None:
        return Phase.FAILED, summary
    return Phase.FAILED, message_of(f"{summary}: {diagnosis.summary}", diagnosis.resolution)
