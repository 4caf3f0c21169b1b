"""Commits in bulk: read as far as a scheduler needs, and cloned into a run that resumes another one.

Nothing is unpickled, and no blob is read or written: both runs refer to the same blobs.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.errors import ObjectNotFoundError, StorageError
from k8sflow.storage.ends import TaskEnd, ends_of, name_of_end
from k8sflow.storage.records import dump, to_bytes
from k8sflow.storage.run_store import CLONED, RunStore

# A thread pool is not worthwhile for fewer reads than this.
_FEW = 4
_COMMIT = "commit.json"


@dataclass(frozen=True)
class RawCommit:
    """A commit as it is stored.

    Args:
        data: Its bytes.
        steps: The next steps.
        width: The number of branches of the foreach that it opens, or None.
        max_parallel: The number of branches that may run at a time.
        is_clone: True if it was itself cloned from another run.
        layers: The tasks from which it inherited artifacts, as ``step/id``.
        attempt: The attempt that wrote it.
        end: The part of it that a list of tasks shows.
    """

    data: bytes = field(repr=False)
    steps: tuple[str, ...]
    width: int | None = None
    max_parallel: int | None = None
    is_clone: bool = False
    layers: tuple[str, ...] = ()
    attempt: int = 0
    end: TaskEnd | None = None

    @staticmethod
    def of(data: bytes, document: Mapping[str, Any]) -> RawCommit:
        """The commit with these bytes and their content."""
        foreach = document["foreach"] or {"width": None, "max_parallel": None}
        is_clone = document.get("origin") is not None
        layers = tuple(document.get("layers", ()))
        steps, attempt = tuple(document["steps"]), document["attempt"]
        end = TaskEnd.of_document(document)
        return RawCommit(data, steps, foreach["width"], foreach["max_parallel"], is_clone, layers, attempt, end)

    def clone(self, origin: str, steps: tuple[str, ...]) -> bytes:
        """The bytes of its clone in another run.

        Args:
            origin: The run that has the commit, ``flow/run``; the origin of a commit that is itself a clone is kept.
            steps: The next steps in the graph of the other run.
        """
        if steps != self.steps:
            document = json.loads(self.data)
            return to_bytes({**document, "steps": steps, "origin": document.get("origin") or origin})
        if self.is_clone:
            return self.data
        return b'%s,"origin":%s}' % (self.data.rstrip()[:-1], json.dumps(origin).encode())


def read_commits(run_store: RunStore, tasks: Sequence[tuple[str, str]]) -> Iterator[RawCommit | None]:
    """The commits of many tasks, each given as step and id, in the same order; None for tasks without one.

    Raises:
        StorageError: A commit is damaged, or the store can't be reached.
    """

    def read(step: str, task: str) -> RawCommit | None:
        key = run_store.task_key(step, task, _COMMIT)
        try:
            data = bytes(run_store.store.get(key))
        except ObjectNotFoundError:
            return None
        return run_store.parsed(key, data, lambda document: RawCommit.of(data, document))

    parallel = run_store.store.parallel_reads
    if parallel == 1 or len(tasks) < _FEW:
        yield from itertools.starmap(read, tasks)
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it imports logging, and each task waits for logging's atexit handler

    with ThreadPoolExecutor(parallel) as pool:
        yield from pool.map(lambda task: read(*task), tasks)


def put_commits(run_store: RunStore, commits: Iterable[tuple[str, str, bytes]]) -> None:
    """Writes clones of another run's commits, each given as step, id and bytes.

    Replaces existing commits, so only the run's driver may call it, before the first task.
    """

    def put(commit: tuple[str, str, bytes]) -> None:
        step, task, data = commit
        run_store.store.put(run_store.task_key(step, task, _COMMIT), [data])

    parallel = run_store.store.parallel_reads
    if parallel == 1:
        for commit in commits:
            put(commit)
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  as above

    with ThreadPoolExecutor(parallel) as pool:
        for _ in pool.map(put, commits):
            pass


def mark_complete(run_store: RunStore, ends: Iterable[tuple[str, str, TaskEnd | None]] = ()) -> None:
    """Records that all clones are written, and their ends, so that lists of tasks need not read the commits.

    Args:
        run_store: The run.
        ends: For each clone the step, the id and the end.
    """
    names: dict[str, list[str]] = {}
    for step, task, end in ends:
        if end is not None:
            names.setdefault(step, []).append(name_of_end(task, end))
    run_store.store.put(f"{run_store.prefix}/{CLONED}", [dump({"ends": names})])


def cloned_ends(run_store: RunStore) -> dict[str, dict[str, TaskEnd]] | None:
    """The ends of the cloned tasks by step and id; None before all clones are written.

    Raises:
        StorageError: The store can't be reached.
    """
    key = f"{run_store.prefix}/{CLONED}"
    try:
        data = bytes(run_store.store.get(key))
    except ObjectNotFoundError:
        return None
    try:
        names: dict[str, list[str]] = run_store.parsed(key, data, lambda document: dict(document.get("ends", {})))
    except StorageError:  # older versions wrote no names; their commits are read
        return {}
    return {step: ends_of(of_step) for step, of_step in names.items()}


def is_complete(run_store: RunStore) -> bool:
    """True if all clones are written."""
    return run_store.store.exists(f"{run_store.prefix}/{CLONED}")
