"""The submitted tasks that are in no Job yet, and how they are divided into Jobs.

Tasks of one kind (see ``task.batch``) that wait together become one Indexed Job where there are enough of them, and
single Jobs otherwise. A task of a foreach that is run again waits for a moment, since others may follow: what made one
branch fail often makes others fail too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from k8sflow.task.batch import TaskBatch, kind_of
from k8sflow.task.spec import TaskSpec

# An Indexed Job may have 100,000 indices; the smaller ones keep its status short, and the first patch of it quick.
MOST_INDICES = 1000
GATHER_SECONDS = 0.5


@dataclass
class _Group:
    """Waiting tasks of one kind.

    Args:
        due: The time from which on a Job may be made of them.
        per_pod: How many of them share a pod.
        indexed_from: How many pods make an Indexed Job.
        most_indices: How many pods it has at most.
        parts: The tasks, as they were submitted.
        count: How many there are.
    """

    due: float
    per_pod: int
    indexed_from: int
    most_indices: int
    parts: deque[Iterator[TaskSpec]] = field(default_factory=deque)
    count: int = 0

    def size(self, most: int | None) -> int:
        """The number of them in the next Job, whose pods are at most so many."""
        most = self.most_indices if most is None else min(most, self.most_indices)
        is_wide = most > 1 and -(-self.count // self.per_pod) >= self.indexed_from
        return min(self.count, self.per_pod * most if is_wide else self.per_pod)

    def pull(self, size: int) -> list[TaskSpec]:
        """Takes so many of them, the first ones first."""
        found: list[TaskSpec] = []
        while len(found) < size:
            found += islice(self.parts[0], size - len(found))
            if len(found) < size:
                self.parts.popleft()
        self.count -= size
        return found


class Backlog:
    """The tasks that wait for room.

    Args:
        indexed_from: How many pods of a step make an Indexed Job.
        per_pod: How many tasks of a step share a pod.
        most_indices: How many pods an Indexed Job has at most.
    """

    def __init__(
        self, indexed_from: Callable[[str], int], per_pod: Callable[[str], int], most_indices: int = MOST_INDICES
    ) -> None:
        self._most_indices = most_indices
        self._indexed_from = indexed_from
        self._per_pod = per_pod
        self._groups: dict[object, _Group] = {}
        self._together: deque[Sequence[TaskSpec]] = deque()

    def __len__(self) -> int:
        return sum(group.count for group in self._groups.values()) + sum(map(len, self._together))

    def add(self, tasks: Sequence[TaskSpec], now: float) -> None:
        """Takes tasks; a sequence that makes them when they are looked at is kept as it is.

        Tasks that run together are submitted together, and come first: they are one Job.
        """
        if tasks[0].nodes > 1:
            self._together.append(tasks)
            return
        kinds = {kind_of(task) for task in tasks}
        if len(kinds) == 1:
            self._append(kinds.pop(), tasks, now)
            return
        for task in tasks:
            self._append(kind_of(task), [task], now)

    def take(self, now: float, most: int | None = None) -> TaskBatch | None:
        """The tasks of the next Job, first come, first served; None if none is due.

        Args:
            now: The time.
            most: How many pods it may have, where its kind has no limit of its own.
        """
        if self._together:
            return TaskBatch.of(self._together.popleft())
        kind = next((kind for kind, group in self._groups.items() if group.due <= now), None)
        if kind is None:
            return None
        group = self._groups[kind]
        tasks = group.pull(group.size(most))
        if group.count == 0:
            del self._groups[kind]
        return TaskBatch.of(tasks)

    def next_due(self) -> float | None:
        """The time from which on ``take`` returns something, if nothing else is submitted; None if never."""
        return min((group.due for group in self._groups.values()), default=None)

    def clear(self) -> list[TaskSpec]:
        """All tasks that wait, which now wait no more."""
        tasks = [task for group in self._groups.values() for part in group.parts for task in part]
        tasks += [task for group in self._together for task in group]
        self._groups.clear()
        self._together.clear()
        return tasks

    def _append(self, kind: object, tasks: Sequence[TaskSpec], now: float) -> None:
        if (group := self._groups.get(kind)) is None:
            first, per_pod = tasks[0], self._per_pod(tasks[0].name.step)
            may_follow = first.name.path and (first.attempt or per_pod > 1) and len(tasks) == 1
            due, indexed_from = now + GATHER_SECONDS if may_follow else now, self._indexed_from(first.name.step)
            group = self._groups[kind] = _Group(due, per_pod, indexed_from, self._most_indices)
        group.parts.append(iter(tasks))
        group.count += len(tasks)
