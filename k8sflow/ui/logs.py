"""The output of an execution in pieces, so that a log of any size can be read without holding it in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from k8sflow.storage.run_store import RunStore

PIECE_BYTES = 256 << 10
_CHUNK_BYTES = 4 << 20
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")


@dataclass(frozen=True)
class LogFile:
    """One stream of one execution.

    Args:
        run_store: The run.
        step: The task's step.
        task: Its id.
        attempt: The execution.
        stream: ``stdout`` or ``stderr``.
    """

    run_store: RunStore
    step: str
    task: str
    attempt: int
    stream: str

    @property
    def key(self) -> str:
        """The key of its first object."""
        return self.run_store.task_key(self.step, self.task, f"{self.attempt}/{self.stream}")

    def size(self) -> int:
        """Its length in bytes, from one listing; in a bucket, a long log is several objects."""
        parts = re.compile(re.escape(self.key) + r"(\.\d+)?")
        prefix = self.key.rpartition("/")[0] + "/"
        return sum(each.size for each in self.run_store.store.list_objects(prefix) if parts.fullmatch(each.key))

    def read(self, start: int, most: int = PIECE_BYTES) -> bytes:
        """A piece of it.

        Args:
            start: The offset in bytes.
            most: The largest number of bytes.
        """
        return self.run_store.store.tail(self.key, start, most)

    def last_text(self, most: int) -> str:
        """Its last lines without colours, for a reader without JavaScript."""
        data = self.read(max(self.size() - most, 0), most)
        return _ESCAPES.sub("", data.decode("utf-8", "replace"))

    def chunks(self) -> Iterator[bytes]:
        """All of it."""
        start = 0
        while data := self.read(start, _CHUNK_BYTES):
            yield data
            start += len(data)

    def find(self, text: str, start: int) -> int | None:
        """The offset of the next line with a text, in capital letters or small ones; None if there is none.

        Args:
            text: The text.
            start: The offset from which on to search; that of a line's beginning.
        """
        wanted, kept = re.compile(re.escape(text.encode("utf-8", "replace")), re.IGNORECASE), b""
        while data := self.read(start, _CHUNK_BYTES):
            block = kept + data
            if found := wanted.search(block):
                return start - len(kept) + block.rfind(b"\n", 0, found.start()) + 1
            start += len(data)
            kept = block[block.rfind(b"\n") + 1 :][-_CHUNK_BYTES:]
        return None
