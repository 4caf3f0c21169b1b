"""Executions of many tasks of one step as one short value: what a Job and its pods are given.

The tasks of a step differ in their path only, and each of their inputs lies on that path (``a/3.1`` reads ``b/3`` or
``b/3.1``). So one task and the paths of the others say everything, and a thousand branches take some hundred bytes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from k8sflow.task.spec import TaskSequence, TaskSpec

Path = tuple[int, ...]
_PATHS = "paths"


@dataclass(frozen=True)
class BranchRange:
    """Successive branches of one foreach.

    Args:
        around: The indices of the foreach branches around that foreach.
        indices: The indices of the branches, in ascending order.
    """

    around: Path
    indices: range

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class TaskBatch(TaskSequence):
    """Executions of tasks of one step, in the order of their paths.

    Args:
        template: The first of them.
        branches: The paths of all of them; empty where the template is the only task.
    """

    template: TaskSpec
    branches: tuple[BranchRange, ...] = ()

    @staticmethod
    def of(tasks: Sequence[TaskSpec]) -> TaskBatch:
        """The batch of some tasks, all of one kind.

        Raises:
            ValueError: They are of several kinds, or there are none.
        """
        ordered = sorted(tasks, key=lambda task: task.name.path)
        if len({kind_of(task) for task in ordered}) != 1:
            raise ValueError("these tasks can't be in one batch")
        if len(ordered) == 1:
            return TaskBatch(ordered[0])
        return TaskBatch(ordered[0], tuple(_grouped(task.name.path for task in ordered)))

    def share(self, number: int, size: int) -> TaskBatch:
        """The tasks of one pod.

        Args:
            number: Which pod, from 0.
            size: How many tasks each pod has; the last one may have fewer.
        """
        if size == 1:
            return TaskBatch(self[number])
        return TaskBatch.of([self[position] for position in range(number * size, min(len(self), (number + 1) * size))])

    @property
    def ids(self) -> str:
        """The ids of the tasks within their step, for people: ``3.0-9, 3.12``."""
        if not self.branches:
            return self.template.name.id
        turn = f" (turn {self.template.name.turn})" if self.template.name.turn else ""
        groups = (_dotted(around, found) for around, found in _by_surroundings(self.branches).items())
        return ", ".join(groups) + turn

    def to_json(self) -> str:
        """The batch as one line of JSON; a single task is written as ``TaskSpec`` writes it."""
        if not self.branches:
            return self.template.to_json()
        paths = {
            ".".join(map(str, around)): ",".join(map(_written, found))
            for around, found in _by_surroundings(self.branches).items()
        }
        return json.dumps({**json.loads(self.template.to_json()), _PATHS: paths}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> TaskBatch:
        """The batch that ``to_json`` wrote.

        Raises:
            ValueError: The text is not such a document.
        """
        try:
            template, paths = TaskSpec.from_json(text), json.loads(text).get(_PATHS, {})
            branches = [
                BranchRange(tuple(map(int, filter(None, around.split(".")))), _read(part))
                for around, written in paths.items()
                for part in written.split(",")
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a batch of tasks: {text[:200]!r}") from error
        return TaskBatch(template, tuple(branches))

    def __len__(self) -> int:
        return self._ends[-1] if self.branches else 1

    def __iter__(self) -> Iterator[TaskSpec]:
        if not self.branches:
            yield self.template
        for found in self.branches:
            for index in found.indices:
                yield self._task((*found.around, index))

    def task_at(self, position: int) -> TaskSpec:
        if not self.branches:
            return self.template
        which = bisect_right(self._ends, position)
        found = self.branches[which]
        return self._task((*found.around, found.indices[position - self._ends[which]]))

    @cached_property
    def _ends(self) -> list[int]:
        """The number of tasks up to the end of each of the branches."""
        return list(accumulate(len(found) for found in self.branches))

    def _task(self, path: Path) -> TaskSpec:
        inputs = tuple(replace(each, path=path[: len(each.path)]) for each in self.template.inputs)
        return replace(self.template, name=replace(self.template.name, path=path), inputs=inputs)


def kind_of(task: TaskSpec) -> object:
    """A hashable value that is the same for tasks that can be in one batch."""
    name, path = task.name, task.name.path
    if not path or any(each.path != path[: len(each.path)] for each in task.inputs):
        return task
    inputs = tuple(replace(each, path=()) for each in task.inputs)
    depths = tuple(len(each.path) for each in task.inputs)
    return replace(task, name=replace(name, path=()), inputs=inputs), len(path), depths


def _grouped(paths: Iterable[Path]) -> Iterator[BranchRange]:
    """Ascending paths as successive branches."""
    around: Path | None = None
    start = stop = 0
    for path in paths:
        if path[:-1] == around and path[-1] == stop:
            stop += 1
            continue
        if around is not None:
            yield BranchRange(around, range(start, stop))
        around, start, stop = path[:-1], path[-1], path[-1] + 1
    if around is not None:
        yield BranchRange(around, range(start, stop))


def _by_surroundings(branches: Iterable[BranchRange]) -> dict[Path, list[range]]:
    found: dict[Path, list[range]] = {}
    for each in branches:
        found.setdefault(each.around, []).append(each.indices)
    return found


def _written(indices: range) -> str:
    return str(indices.start) if len(indices) == 1 else f"{indices.start}-{indices.stop - 1}"


def _read(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _dotted(around: Path, indices: Iterable[range]) -> str:
    prefix = "".join(f"{index}." for index in around)
    return ", ".join(f"{prefix}{_written(found)}" for found in indices)
