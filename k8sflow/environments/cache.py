"""The folder of this user's cache in which environments and resolved locks are kept."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k8sflow.errors import DependencyError


def folder(name: str) -> Path:
    """A folder of the cache, which exists.

    Args:
        name: ``environments``, ``locks``, …

    Raises:
        DependencyError: It can't be made.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):  # noqa: PTH117  such a value has to be ignored (XDG Base Directory Specification)
        root = os.path.expanduser("~/.cache")  # noqa: PTH111  Path.home raises where there is none
    found = Path(root, "k8sflow", name)
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(found, error) from error
    return found


def unwritable(path: Path, error: OSError) -> DependencyError:
    """The error for a file or folder of the cache that can't be written."""
    return DependencyError(
        f"the environment of a step can't be kept in {path}: {error.strerror or error}.",
        advice="Set XDG_CACHE_HOME to a folder with space that this user can write to.",
    )


def write(file: Path, data: bytes) -> None:
    """Writes a file of the cache, which appears whole or not at all.

    Raises:
        DependencyError: It can't be written.
    """
    import tempfile  # noqa: PLC0415  most runs write nothing

    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(file, error) from error


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds a lock among processes until the block ends; the kernel releases that of one that dies.

    On Windows, which only resolves and downloads for pods, two processes may do the same work: what they make appears
    under its name at once and is the same.

    Raises:
        DependencyError: The file of the lock can't be written.
    """
    try:
        stream = file.open("a")
    except OSError as error:
        raise unwritable(file, error) from error
    with contextlib.closing(stream):
        if sys.platform != "win32":
            import fcntl  # noqa: PLC0415  not on Windows

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
