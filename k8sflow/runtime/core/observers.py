"""Observers of a run: the terminal, the log, the FlowRun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from k8sflow.executors.base import TaskEvent
from k8sflow.flow.decorators.policy import Catch
from k8sflow.runtime.core.retries import Again
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec


class Observer(Protocol):
    """Watches a run, in the thread of its loop."""

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Tasks of one step became ready."""

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Tasks of one step have results of other drivers: they were cloned, or an earlier driver ran them."""

    def event(self, event: TaskEvent) -> None:
        """A task's event."""

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """A failure is followed by another execution."""

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """A failure for good counts as done."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Tasks of one step became ready."""
        for observer in self._observers:
            observer.submitted(group)

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Tasks of one step have results of other drivers."""
        for observer in self._observers:
            observer.done_before(tasks)

    def event(self, event: TaskEvent) -> None:
        """A task's event."""
        for observer in self._observers:
            observer.event(event)

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """A failure is followed by another execution."""
        for observer in self._observers:
            observer.retried(task, result, again)

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """A failure for good counts as done."""
        for observer in self._observers:
            observer.caught(task, result, catch)
