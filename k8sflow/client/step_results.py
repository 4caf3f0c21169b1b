"""The results of a step's tasks, from listings instead of a read for each task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

from k8sflow.errors import StorageError
from k8sflow.storage.clones import cloned_ends
from k8sflow.storage.ends import TaskEnd
from k8sflow.storage.run_store import RunStore


class StepResults:
    """The results of a step's tasks at the moment at which one of them is asked for.

    Args:
        run_store: The run.
        step: The step.
        tasks: The number of its tasks.
    """

    def __init__(self, run_store: RunStore, step: str, tasks: int) -> None:
        self._run_store = run_store
        self._step = step
        self._tasks = tasks

    def end(self, task: str) -> TaskEnd | None:
        """The end of a task; None if it has none, or if only its commit has it."""
        if (end := self._ends.get(task)) is not None or task not in self._committed:
            return end
        return self._clones.get(task)

    def has_commit(self, task: str) -> bool:
        """True if the task has a result."""
        return task in self._ends or task in self._committed

    @cached_property
    def _committed(self) -> Collection[str]:
        return () if len(self._ends) == self._tasks else self._run_store.committed(self._step)

    @cached_property
    def _clones(self) -> Mapping[str, TaskEnd]:
        try:
            return (cloned_ends(self._run_store) or {}).get(self._step, {})
        except StorageError:  # their commits are read
            return {}

    @cached_property
    def _ends(self) -> Mapping[str, TaskEnd]:
        return self._run_store.ends(self._step)
