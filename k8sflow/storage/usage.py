"""The memory, CPU time and input and output that tasks really used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """The resources that a task used, or several tasks together; None for what could not be measured.

    Args:
        memory_bytes: The peak of its memory; of several tasks, the largest peak.
        cpu_seconds: The time on CPUs, in user and kernel mode, of the task and the processes that it waited for.
        read_bytes: Bytes that it read by system calls, whether or not from a disk.
        written_bytes: Bytes that it wrote likewise.
        is_partial: True if the task had several processes, and the memory is only that of the largest one.
    """

    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    is_partial: bool = False

    def to_document(self) -> dict[str, Any]:
        """The usage as JSON types."""
        return asdict(self)

    @staticmethod
    def from_document(document: Mapping[str, Any] | None) -> Usage | None:
        """The usage in a JSON document, or None."""
        return None if document is None else Usage(**document)


def together(found: Iterable[Usage | None]) -> Usage | None:
    """The usage of several tasks together; None if that of none of them is known."""
    known = [each for each in found if each is not None]
    if not known:
        return None
    cpu = [each.cpu_seconds for each in known if each.cpu_seconds is not None]
    return Usage(
        memory_bytes=max((each.memory_bytes for each in known if each.memory_bytes is not None), default=None),
        cpu_seconds=round(sum(cpu), 3) if cpu else None,
        read_bytes=_sum(each.read_bytes for each in known),
        written_bytes=_sum(each.written_bytes for each in known),
        is_partial=any(each.is_partial for each in known),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
