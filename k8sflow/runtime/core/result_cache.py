"""The driver's side of ``@cache``: takes results of earlier runs for tasks before they start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from k8sflow.debug_log import DebugLog
from k8sflow.errors import PackageError
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.cache_index import CacheEntry
from k8sflow.storage.cache_plan import CachePlan
from k8sflow.storage.file_state import signature
from k8sflow.task.cached import HARMLESS, Keys, find, hold, take
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskSpec

# So many tasks are looked up before those of them that have to run are submitted.
_AT_A_TIME = 64
_log = DebugLog(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Taken:
    """A task whose result was taken from an earlier run.

    Args:
        task: The task.
        result: Its result.
        origin: The task that made the result, as ``flow/run/step/task``.
        finished: When that task finished, in seconds since 1970.
    """

    task: TaskSpec
    result: TaskResult
    origin: str
    finished: float


class ResultCache:
    """Takes results of earlier runs for the tasks of one run.

    Args:
        keys: Makes the keys of its tasks.
        folder: The folder of the flow's code; None where the code is not at hand.
    """

    def __init__(self, keys: Keys, folder: Path | None) -> None:
        self._keys = keys
        self._folder = folder

    def take(self, tasks: Sequence[TaskSpec]) -> Iterator[tuple[list[Taken], Sequence[TaskSpec]]]:
        """Yields, for some tasks after the other, those whose results were taken, and those that have to run.

        Args:
            tasks: Tasks of one step.
        """
        plan = self._keys.record.cache.get(tasks[0].name.step)
        if (
            plan is None
            or not plan.is_taken
            or plan.refused
            or tasks[0].attempt
            or tasks[0].nodes > 1
            or not self._is_current(plan)
        ):
            yield [], tasks
            return
        for start in range(0, len(tasks), _AT_A_TIME):
            some = tasks[start : start + _AT_A_TIME]
            entries = self._entries(plan, some)
            yield (
                [_taken(self._keys.record.flow, t, entry) for t, entry in zip(some, entries, strict=True) if entry],
                [task for task, entry in zip(some, entries, strict=True) if entry is None],
            )

    def _is_current(self, plan: CachePlan) -> bool:
        """True if tasks on this machine would run from the files for which the plan was created."""
        if not plan.signature:
            return True
        try:
            return self._folder is not None and signature(self._folder, plan.outside) == plan.signature
        except PackageError:
            return False

    def _entries(self, plan: CachePlan, tasks: Sequence[TaskSpec]) -> list[CacheEntry | None]:
        """The results that were taken; None for a task that has to run."""
        found = self._each(lambda task: find(self._keys, plan, task), tasks)
        usable = {task.name: each for task, each in zip(tasks, found, strict=True) if each is not None}
        if not usable:
            return [None] * len(tasks)
        try:
            held = hold(self._keys, [each.entry for each in usable.values()])
        except HARMLESS as error:
            _log.debug("No result of the cache is taken for %s: %s", tasks[0].name.step, error)
            return [None] * len(tasks)
        waiting = [task for task in tasks if task.name in usable and usable[task.name].entry.run in held]
        taken = self._each(lambda task: take(self._keys, task, usable[task.name]) or None, waiting)
        done = {task.name for task, is_new in zip(waiting, taken, strict=True) if is_new}
        return [usable[task.name].entry if task.name in done else None for task in tasks]

    def _each(self, call: Callable[[TaskSpec], _T | None], tasks: Sequence[TaskSpec]) -> list[_T | None]:
        """Calls something for each task; None for those where it fails, so that they run."""

        def harmless(task: TaskSpec) -> _T | None:
            try:
                return call(task)
            except HARMLESS as error:
                _log.debug("%s takes no result of the cache: %s", task.name, error)
                return None

        parallel = self._keys.run_store.store.parallel_reads
        if parallel == 1 or len(tasks) == 1:
            return [harmless(task) for task in tasks]
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it imports logging; few runs need it

        with ThreadPoolExecutor(parallel) as pool:
            return list(pool.map(harmless, tasks))


def _taken(flow: str, task: TaskSpec, entry: CacheEntry) -> Taken:
    width, limit = (entry.foreach.width, entry.foreach.max_parallel) if entry.foreach is not None else (None, None)
    transition = Transition(entry.steps, width, limit)
    origin = f"{flow}/{entry.run}/{entry.step}/{entry.task}"
    return Taken(task, TaskResult(Outcome.SUCCEEDED, transition), origin, entry.finished)
