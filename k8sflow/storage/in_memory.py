"""An object store in this process's memory, for tests of flows, which write no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k8sflow.errors import ObjectNotFoundError
from k8sflow.outages import Report
from k8sflow.storage.objects import Buffer, ObjectInfo


class MemoryStore:
    """Objects as bytes in a dictionary."""

    parallel_reads = 1
    is_shared = False
    poll_seconds = 0.2
    folder = None
    url = "memory"

    def __init__(self) -> None:
        self._objects: dict[str, bytearray] = {}

    def get(self, key: str) -> Buffer:
        """A copy of the object's bytes, which the caller may change."""
        if key not in self._objects:
            raise ObjectNotFoundError(f"there is no {key} in {self.url}.")
        return bytearray(self._objects[key])

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Stores the parts as one object."""
        self._objects[key] = bytearray().join(parts)

    def put_new(self, key: str, data: bytes) -> bool:
        """Stores the object unless the key is taken; returns True if it was stored."""
        mine = bytearray(data)
        return self._objects.setdefault(key, mine) is mine

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects."""
        for key in keys:
            self._objects.pop(key, None)

    def exists(self, key: str, size: int | None = None) -> bool:
        return key in self._objects and size in {None, len(self._objects[key])}

    def age(self, key: str, size: int) -> float | None:
        """Always 0 seconds for an object of this size: the memory of a process is not cleaned up."""
        return 0.0 if self.exists(key, size) else None

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects with a prefix, in ascending order."""
        return (ObjectInfo(key, len(self._objects[key]), 0.0) for key in self.list_keys(prefix))

    def list_keys(self, prefix: str) -> Iterator[str]:
        """All keys with a prefix, in ascending order."""
        yield from sorted(key for key in self._objects if key.startswith(prefix))

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The names directly below a prefix that have keys below them, in ascending order."""
        below = (key.removeprefix(prefix).split("/", 1) for key in self.list_keys(prefix))
        yield from dict.fromkeys(name for name, *rest in below if rest)

    def tail(self, key: str, start: int, most: int | None = None) -> bytes:
        """The object's bytes from an offset on; empty if there are no more, or no object."""
        return bytes(self._objects.get(key, b"")[start : None if most is None else start + most])

    def open_log(self, key: str) -> MemoryLog:
        return MemoryLog(self._objects, key)

    def after_fork(self) -> MemoryStore:
        """The store itself, as it was at the fork."""
        return self

    def report_outages(self, report: Report) -> None:
        """Does nothing: memory has no outages."""

    def limit_patience(self, seconds: float) -> None:
        """Does nothing: no call waits for memory."""

    def close(self) -> None:
        """Does nothing: there are no resources to free."""


class MemoryLog:
    """Appends to an object."""

    def __init__(self, objects: dict[str, bytearray], key: str) -> None:
        self._objects = objects
        self._key = key

    def write(self, data: bytes) -> None:
        """Appends bytes; the first write creates the object."""
        self._objects.setdefault(self._key, bytearray()).extend(data)

    def flush(self) -> None:
        """Does nothing: each write is visible at once."""

    @property
    def missing(self) -> int:
        """Always 0."""
        return 0

    def close(self) -> None:
        """Does nothing: there are no resources to free."""
