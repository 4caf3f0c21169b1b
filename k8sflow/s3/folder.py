"""The folder with the temporary files of an ``S3``.

It is deleted when the ``S3`` is closed, collected, or its process ends. A process that is killed can't do that, so its
folder is locked (flock, which the kernel releases), and the next ``S3`` on the machine deletes the folders that nobody
locks any more. A fork shares the lock, so that the files stay while a worker of ``parallel_map`` may read them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
import weakref
from pathlib import Path

from k8sflow.debug_log import DebugLog
from k8sflow.errors import S3Error
from k8sflow.flow.current import current

with contextlib.suppress(ImportError):  # Windows has none: folders of killed processes stay there
    import fcntl

_log = DebugLog(__name__)
# With the machine's name: a folder may be on a network, where locks of other machines may not be seen.
_PREFIX = f"k8sflow-s3-{re.sub('[^A-Za-z0-9]', '', socket.gethostname())}-"
_LOCK = ".lock"
_CAN_LOCK = os.name == "posix"
_NAME_LENGTH = 100


class Folder:
    """A new folder for temporary files.

    Args:
        root: The folder in which it is; None for ``current.tempdir``, and outside of a task for Python's.

    Raises:
        S3Error: It can't be created.
    """

    def __init__(self, root: str | os.PathLike[str] | None) -> None:
        around = os.fspath(root or current.tempdir or tempfile.gettempdir())
        _delete_abandoned(around)
        try:
            self.path = os.path.abspath(tempfile.mkdtemp(prefix=_PREFIX, dir=around))  # noqa: PTH100  no links resolved
        except OSError as error:
            raise S3Error(
                f"S3 can't create a folder for temporary files in {around}: {error.strerror}.",
                advice="Name another one: S3(tmproot='/path').",
            ) from error
        self.close = weakref.finalize(self, _delete, self.path, _locked(Path(self.path, _LOCK)), os.getpid())

    def new_file(self, key: str) -> str:
        """Creates a file, whose name ends like a key, since libraries tell formats by it; its path."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", key.rpartition("/")[2])[-_NAME_LENGTH:]
        descriptor, path = tempfile.mkstemp(suffix=f"-{name}", prefix="", dir=self.path)
        os.close(descriptor)
        return path


def _locked(file: Path) -> int | None:
    """A descriptor that locks a new folder; the file has its name only when it is locked.

    None where there are no locks: such a folder is never taken for one of a killed process.
    """
    if not _CAN_LOCK:
        return None
    new = file.with_suffix(".new")
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # some file systems have none
        os.close(descriptor)
        return None
    new.rename(file)
    return descriptor


def _delete(path: str, lock: int | None, process: int) -> None:
    if os.getpid() != process:  # a fork: the folder is its parent's
        return
    shutil.rmtree(path, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _delete_abandoned(around: str) -> None:
    """Deletes the folders of processes that were killed."""
    if not _CAN_LOCK:
        return
    with contextlib.suppress(OSError):  # as of another user
        for path in Path(around).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):  # locked, or of another user
                descriptor = os.open(path / _LOCK, os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                    _log.debug("Deleted %s, whose process was killed.", path)
                finally:
                    os.close(descriptor)
