"""The artifacts of a task: their properties and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from k8sflow.client.artifact_classes import finder
from k8sflow.client.html import artifact_html
from k8sflow.client.tree import TASKS, TaggedAsParent
from k8sflow.errors import NotFoundError
from k8sflow.runtime.lookup import split
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore

if TYPE_CHECKING:
    from k8sflow.client.task import Task


# Names with these prefixes are never artifacts.
_OURS = ("__", "_k8sflow_")


class DataArtifact(TaggedAsParent):
    """One artifact: its value, and its properties, which are known without loading it.

    Args:
        pathspec: ``flow/run/step/task/name``, or the name if a parent is given.
        parent: The task.
        ref: The reference to the value.

    Raises:
        NotFoundError: There is no such artifact.
    """

    def __init__(self, pathspec: str, *, parent: Task | None = None, ref: ArtifactRef | None = None) -> None:
        self.id = pathspec
        if parent is None:
            task, self.id = split(pathspec, "flow/run/step/task/artifact")
            parent = TASKS.find(task)
        self.parent: Task = parent
        self._ref: ArtifactRef = parent[self.id]._ref if ref is None else ref  # noqa: SLF001  the same class

    @property
    def pathspec(self) -> str:
        """``flow/run/step/task/name``."""
        return f"{self.parent.pathspec}/{self.id}"

    @property
    def origin_pathspec(self) -> str | None:
        """The pathspec of the artifact in the origin run, if the task is a clone."""
        above = self.parent.origin_pathspec
        return f"{above}/{self.id}" if above else None

    @property
    def ref(self) -> ArtifactRef:
        """The reference to the stored value."""
        return self._ref

    @property
    def data(self) -> Any:
        """The value, verified and loaded.

        Raises:
            ArtifactError: It is damaged, missing, or needs code that is not available.
        """
        run = self.parent.parent.parent
        store = ArtifactStore(run.run_store.store, run.run_store.flow)
        return store.load(self._ref, self.pathspec, finder(run.run_store, run.record))

    @property
    def size(self) -> int:
        """The length of the value's pickle and buffers in bytes, before any compression."""
        return self._ref.value_size

    @property
    def sha(self) -> str:
        """The sha256 of the stored value."""
        return self._ref.blob

    @property
    def type(self) -> str:
        """The value's type, as ``module.Class``."""
        return self._ref.type

    @property
    def created_at(self) -> datetime | None:
        """The time at which the task finished."""
        return self.parent.finished_at

    finished_at = created_at

    def __repr__(self) -> str:
        return f"DataArtifact({self.pathspec!r}, {self.type}, {self.size} bytes)"

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return artifact_html(self)


class TaskArtifacts:
    """A task's artifacts: ``artifacts.total``, ``artifacts["total"]``, or by iteration."""

    def __init__(self, found: Mapping[str, DataArtifact]) -> None:
        self._k8sflow_found = found

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_OURS):  # pickle reads it before the object has attributes
            raise AttributeError(name)
        if name == "_fields" and name not in self._k8sflow_found:  # Metaflow returns a named tuple
            return tuple(dir(self))
        if name not in self._k8sflow_found:
            raise AttributeError(f"there is no artifact {name!r}; the artifacts are {', '.join(dir(self)) or 'none'}.")
        return self._k8sflow_found[name]

    def __getitem__(self, name: str) -> DataArtifact:
        return self._k8sflow_found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._k8sflow_found

    def __iter__(self) -> Iterator[DataArtifact]:
        return iter(self._k8sflow_found.values())

    def __len__(self) -> int:
        return len(self._k8sflow_found)

    def __dir__(self) -> list[str]:
        return sorted(self._k8sflow_found)

    def __repr__(self) -> str:
        return f"<artifacts {', '.join(dir(self))}>"


class TaskData:
    """A task's artifacts as attributes."""

    def __init__(self, task: Task) -> None:
        self._k8sflow_task = task

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_OURS):
            raise AttributeError(name)
        if name == "_artifacts" and name not in self:  # Metaflow's access to the artifacts without their values
            return {artifact.id: artifact for artifact in self._k8sflow_task}
        try:
            value = self._k8sflow_task[name].data
        except NotFoundError as error:
            raise AttributeError(str(error)) from None
        self.__dict__[name] = value
        return value

    def __contains__(self, name: str) -> bool:
        return name in self._k8sflow_task

    def __dir__(self) -> list[str]:
        return dir(self._k8sflow_task.artifacts)

    def __repr__(self) -> str:
        return f"<data of {self._k8sflow_task.pathspec}: {', '.join(dir(self))}>"
