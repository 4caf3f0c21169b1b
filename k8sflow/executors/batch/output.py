"""The output of a task, read from the store as its agent uploads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import get_args

from k8sflow.errors import AccessError, StorageError
from k8sflow.executors.base import Output
from k8sflow.storage.run_store import RunStore
from k8sflow.task.host.framing import OutputStream
from k8sflow.task.spec import TaskSpec

# What is shown of the output of a task that failed without being followed.
_END_BYTES = 16 << 10


class StoredOutput:
    """Reads the output of one execution, each byte once.

    Args:
        run_store: The run's records.
        spec: The execution.
    """

    def __init__(self, run_store: RunStore, spec: TaskSpec) -> None:
        self._run_store = run_store
        self._spec = spec
        self._read: dict[OutputStream, int] = dict.fromkeys(get_args(OutputStream), 0)

    def new(self) -> Iterator[Output]:
        """The output that was uploaded since the last call; nothing while the store can't be read."""
        name = self._spec.name
        for stream, start in self._read.items():
            with suppress(StorageError, AccessError):
                data = self._run_store.read_log(name.step, name.id, self._spec.attempt, stream, start)
                self._read[stream] = start + len(data)
                if data:
                    yield Output(self._spec, stream, data)

    def end(self) -> Iterator[Output]:
        """The last lines, if it is long."""
        name = self._spec.name
        for stream in self._read:
            with suppress(StorageError, AccessError):
                marks = self._run_store.read_marks(name.step, name.id, self._spec.attempt, stream)
                late = [mark.offset for mark in marks if marks[-1].offset - mark.offset <= _END_BYTES]
                self._read[stream] = late[0] if late else 0
        yield from self.new()
