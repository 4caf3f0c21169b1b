"""The observer of a run: what it shows is up to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from k8sflow.executors.base import TaskEvent
from k8sflow.flow.decorators.policy import Catch
from k8sflow.runtime.core.retries import Again
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec

if TYPE_CHECKING:
    from k8sflow.runtime.core.result_cache import Taken


class Observer:
    """Watches a run, in the thread of its loop; this one ignores everything."""

    def opened(self, step: str, width: int) -> None:
        """A foreach over a step has so many branches, not all of which may be ready at once."""

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Tasks of one step became ready."""

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Tasks of one step have results of other drivers: they were cloned, or an earlier driver ran them."""

    def cached(self, taken: Taken) -> None:
        """The result of a submitted task was taken from an earlier run, so that it doesn't start."""

    def event(self, event: TaskEvent) -> None:
        """A task's event."""

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """A failure is followed by another execution."""

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """A failure for good counts as done."""
