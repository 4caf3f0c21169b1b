"""Locks between processes: the kernel drops them when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.console import say


@contextmanager
def held(path: Path, doing: str = "is at work on the same cluster") -> Iterator[None]:
    """Hold the lock at ``path`` while the block runs; report its holder, and what it does, when it must wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not inherited by children: a daemon started under the lock must not keep it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            say(f"waiting for process {holder}, which {doing}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
