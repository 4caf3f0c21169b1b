"""The driver's side of ``@cache``: takes results of earlier runs for tasks before they start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from k8sflow.debug_log import DebugLog
from k8sflow.errors import PackageError
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.cache_index import CacheEntry
from k8sflow.storage.cache_plan import CachePlan
from k8sflow.storage.file_state import signature
from k8sflow.task.cached import HARMLESS, Keys, give_back, is_held, take
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskSpec

# So many tasks are looked up before those of them that have to run are submitted.
_AT_A_TIME = 64
_log = DebugLog(__name__)


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

        def find(task: TaskSpec) -> CacheEntry | None:
            try:
                return take(self._keys, plan, task)
            except HARMLESS as error:
                _log.debug("%s is not looked up in the cache: %s", task.name, error)
                return None

        parallel = self._keys.run_store.store.parallel_reads
        if parallel == 1 or len(tasks) == 1:
            found = [find(task) for task in tasks]
        else:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it imports logging; few runs need it

            with ThreadPoolExecutor(parallel) as pool:
                found = list(pool.map(find, tasks))
        origins = {entry.run: entry for entry in found if entry is not None}
        lost = {run for run, entry in origins.items() if not is_held(self._keys, entry)}
        for task, entry in zip(tasks, found, strict=True):
            if entry is not None and entry.run in lost:
                give_back(self._keys, task)
        return [None if entry is None or entry.run in lost else entry for entry in found]


def _taken(flow: str, task: TaskSpec, entry: CacheEntry) -> Taken:
    width, limit = (entry.foreach.width, entry.foreach.max_parallel) if entry.foreach is not None else (None, None)
    transition = Transition(entry.steps, width, limit)
    origin = f"{flow}/{entry.run}/{entry.step}/{entry.task}"
    return Taken(task, TaskResult(Outcome.SUCCEEDED, transition), origin, entry.finished)
