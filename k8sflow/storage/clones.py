"""Commits in bulk: read as far as a scheduler needs them, and taken over by a run that resumes another one.

Nothing is unpickled, and no blob is touched: both runs name the same ones.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.errors import ObjectNotFoundError
from k8sflow.storage.records import to_bytes
from k8sflow.storage.run_store import RunStore

# Fewer reads than this are not worth a pool of threads.
_FEW = 4
_COMMIT = "commit.json"


@dataclass(frozen=True)
class RawCommit:
    """A commit as it lies in the store.

    Args:
        data: Its bytes.
        steps: The next steps.
        width: How many branches the foreach has that it opens; None where it opens none.
        max_parallel: How many of them may be under way at a time.
        is_clone: Whether it was taken over from another run already.
        layers: The tasks from which it has inherited, as ``step/id``.
    """

    data: bytes = field(repr=False)
    steps: tuple[str, ...]
    width: int | None = None
    max_parallel: int | None = None
    is_clone: bool = False
    layers: tuple[str, ...] = ()

    @staticmethod
    def of(data: bytes, document: Mapping[str, Any]) -> RawCommit:
        """The commit with these bytes, and what they say."""
        foreach = document["foreach"] or {"width": None, "max_parallel": None}
        is_clone = document.get("origin") is not None
        layers = tuple(document.get("layers", ()))
        return RawCommit(data, tuple(document["steps"]), foreach["width"], foreach["max_parallel"], is_clone, layers)

    def clone(self, origin: str, steps: tuple[str, ...]) -> bytes:
        """The bytes with which a run takes the result over.

        Args:
            origin: The run that has it, ``flow/run``; where that has taken it over itself, its own origin is kept.
            steps: The next steps, as the graph of the run that takes it over has them.
        """
        if steps != self.steps:
            document = json.loads(self.data)
            return to_bytes({**document, "steps": steps, "origin": document.get("origin") or origin})
        if self.is_clone:
            return self.data
        return b'%s,"origin":%s}' % (self.data.rstrip()[:-1], json.dumps(origin).encode())


def read_commits(run_store: RunStore, tasks: Sequence[tuple[str, str]]) -> Iterator[RawCommit | None]:
    """The results of many tasks, each given as step and id, in their order; None for those that have none.

    Raises:
        StorageError: One of them is damaged, or the store can't be reached.
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
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it brings logging, whose end each task waits for

    with ThreadPoolExecutor(parallel) as pool:
        yield from pool.map(lambda task: read(*task), tasks)


def put_commits(run_store: RunStore, commits: Iterable[tuple[str, str, bytes]]) -> None:
    """Writes results that another run has, each given as step, id and bytes.

    Only the run's driver may do so, before its first task: what is there under their names is replaced.
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


def mark_complete(run_store: RunStore) -> None:
    """Says that everything is there that the run takes over."""
    run_store.store.put(f"{run_store.prefix}/cloned.json", [to_bytes({})])


def is_complete(run_store: RunStore) -> bool:
    """Whether everything is there that the run takes over."""
    return run_store.store.exists(f"{run_store.prefix}/cloned.json")
