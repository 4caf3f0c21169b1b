"""Temporary folders that last as long as their process, also if it is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "k8sflow-checkpoints-"


class ProcessFolder:
    """A new, empty folder. Its process holds a lock on it, which the kernel releases when the process dies.

    A new one deletes the folders of dead processes beside it, because a process that is killed can't delete its own.
    """

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
        self._lock = _lock(folder)
        self.path = folder.with_name(folder.name.removeprefix("new-"))
        folder.rename(self.path)  # others see it once it is locked
        for other in self.path.parent.glob(f"{_PREFIX}*"):
            if other != self.path and (lock := _lock(other)) is not None:
                shutil.rmtree(other, ignore_errors=True)
                os.close(lock)

    def delete(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(folder: Path) -> int | None:
    """An open, locked descriptor of a folder; None if another process holds it, or the system can't lock folders."""
    try:
        import fcntl  # noqa: PLC0415  not on Windows
    except ImportError:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # another user's, or just deleted
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
