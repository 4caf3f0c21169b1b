"""The artifacts of tasks: those in their commits, and those inherited by layers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from k8sflow.errors import ArtifactError
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.layers import Layer, resolve
from k8sflow.storage.records import Commit
from k8sflow.storage.run_store import RunStore

# A thread pool is not worthwhile for fewer reads than this.
_FEW = 4
# The number of cached layers; the tasks of a foreach share theirs.
_KEPT = 256


@dataclass(frozen=True)
class Table:
    """The artifacts of a task.

    Args:
        layers: The tasks that set them, the oldest first and the task itself last.
        without: Names that a layer has and the task doesn't.
    """

    layers: tuple[Layer, ...] = ()
    without: frozenset[str] = frozenset()

    def get(self, name: str) -> ArtifactRef | None:
        """An artifact, or None."""
        seen = self.layers[-1:] if name in self.without else self.layers
        return next((layer.own[name] for layer in reversed(seen) if name in layer.own), None)

    def refs(self) -> dict[str, ArtifactRef]:
        """All artifacts by name."""
        if not self.layers:
            return {}
        return {**resolve(self.layers[:-1], self.without), **self.layers[-1].own}


class Tables:
    """Reads the artifacts of a run's tasks, each layer once; safe for threads.

    Args:
        run_store: The run.
    """

    def __init__(self, run_store: RunStore) -> None:
        self._run_store = run_store
        self._layers: dict[str, Layer] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Tables], tuple[RunStore]]:
        return type(self), (self._run_store,)

    def table(self, task: str, commit: Commit) -> Table:
        """The artifacts of a task.

        Args:
            task: The task, as ``step/id``.
            commit: Its commit.

        Raises:
            ArtifactError: The commit of a task from which it inherited artifacts is missing.
        """
        with self._lock:
            missing = [name for name in commit.layers if name not in self._layers]
            if len(self._layers) + len(missing) > _KEPT:
                self._layers.clear()
                missing = list(commit.layers)
            self._layers.update((layer.task, layer) for layer in self._read(missing))
            below = tuple(self._layers[name] for name in commit.layers)
        return Table((*below, Layer(task, commit.artifacts)), frozenset(commit.without))

    def _read(self, tasks: list[str]) -> Iterator[Layer]:
        parallel = self._run_store.store.parallel_reads
        if parallel == 1 or len(tasks) < _FEW:
            yield from map(self._read_one, tasks)
            return
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it imports logging, and each task waits for logging's atexit handler

        with ThreadPoolExecutor(parallel) as pool:
            yield from pool.map(self._read_one, tasks)

    def _read_one(self, task: str) -> Layer:
        step, _, number = task.partition("/")
        commit = self._run_store.read_commit(step, number, is_written=True)
        if commit is None:
            raise ArtifactError(
                f"the task {task} has no result in {self._run_store.store.url}, but later tasks inherited from it.",
                cause="It was deleted after the task finished.",
            )
        return Layer(task, commit.artifacts)
