"""The local tasks that wait for a worker, and how many may run at a time."""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from k8sflow.executors.base import Queued
from k8sflow.task.spec import TaskSpec

_FILES_PER_TASK = 7  # its three pipes, and two logs, each with the times of its lines
_SPARE_FILES = 64
_LEAST_SPARE_FILES = 16  # where the limit leaves no room for as many


class TaskQueue:
    """Tasks in the order in which they were submitted.

    Those that have to run at the same time (``num_parallel``) start together; where they are more than
    ``max_workers``, they start when nothing else runs.

    Args:
        max_workers: How many tasks may run at a time; fewer do where the system allows fewer open files.
    """

    def __init__(self, max_workers: int) -> None:
        self._wanted_workers = max_workers
        self._max_workers = raise_file_limit(max_workers)
        self._groups: deque[tuple[Sequence[TaskSpec], int]] = deque()  # each with the index of its next task

    def add(self, tasks: Sequence[TaskSpec]) -> Queued | None:
        """Takes tasks; returns why they wait where that is more than a lack of free workers."""
        self._groups.append((tasks, 0))
        if tasks[0].nodes > 1 and len(tasks) > self._max_workers:
            raise_file_limit(len(tasks))
            return Queued(
                tasks[0],
                f"its {len(tasks)} processes run at the same time, which is more than --max-workers "
                f"{self._max_workers}: they start when nothing else runs.",
            )
        if len(tasks) > self._max_workers < self._wanted_workers:
            most = "1 task runs" if self._max_workers == 1 else f"{self._max_workers} tasks run"
            return Queued(
                tasks[0],
                f"{most} at a time, not {self._wanted_workers}: there can't be more open files.",
                "Raise the hard limit (ulimit -Hn), or lower --max-workers.",
            )
        return None

    def startable(self, running: int) -> Sequence[TaskSpec]:
        """The next tasks, if they may start beside so many that run; call ``started`` after the start of each."""
        if not self._groups:
            return ()
        tasks, first = self._groups[0]
        group = tasks[first:] if tasks[first].nodes > 1 else tasks[first : first + 1]
        most = max(len(group), self._max_workers) if len(group) > 1 else self._max_workers
        return group if running + len(group) <= most else ()

    def started(self) -> None:
        """Removes the next task."""
        tasks, first = self._groups[0]
        if first + 1 < len(tasks):
            self._groups[0] = (tasks, first + 1)
        else:
            self._groups.popleft()

    def __iter__(self) -> Iterator[TaskSpec]:
        for tasks, first in self._groups:
            yield from tasks[first:]


def raise_file_limit(max_workers: int) -> int:
    """Lets this process open the files of so many workers; returns how many the system allows.

    Tasks keep the limit that they had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/dev/fd").iterdir()))
    needed = used + _FILES_PER_TASK * max_workers + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    if hard == resource.RLIM_INFINITY:
        return max_workers
    return max(1, min(max_workers, (hard - used - _LEAST_SPARE_FILES) // _FILES_PER_TASK))
