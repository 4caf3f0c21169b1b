"""Bytes between a worker process and its parent."""

from __future__ import annotations

import select
from typing import Any, Protocol

READ_BYTES = 1 << 30  # the most that is read in one system call; the kernel's own limit is just below 2 GiB


class Channel(Protocol):
    """Bytes to and from the other side. Reading raises `WorkerDied` or `EOFError` if the other side has ended."""

    def read_into(self, view: memoryview) -> None: ...
    def write(self, data: Any) -> None: ...


class WorkerEnd(Channel, Protocol):
    """The parent's channel to a worker."""

    def read_memory(self, address: int, view: memoryview) -> None:
        """Copies from the worker's memory; PermissionError if that is impossible."""


def read_exactly(channel: Channel, size: int) -> bytearray:
    data = bytearray(size)
    channel.read_into(memoryview(data))
    return data


def readable_within(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))  # a negative time would mean forever
