"""Forking, and resources of the parent that a forked child must give up: locks, descriptors, buffered output."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import threading
import time
import warnings
from typing import Any

from .signals import is_refusal

_start_lock = threading.RLock()  # re-entrant: the collector may close a forgotten generator while workers start
_IMPORT_SECONDS = 10.0  # the longest wait for the imports of other threads
private_fds: set[int] = set()  # pipe ends that a forked child of this process must not keep open


def start_lock() -> contextlib.AbstractContextManager[bool]:
    """The lock that serialises starting and ending workers in this process."""
    return _start_lock


def fork_process() -> int:
    """Calls `os.fork` without Python 3.12's warning about threads; `native.fork_hazard` finds those that matter."""
    if sys.version_info >= (3, 12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()
    return os.fork()


def wait_for_imports() -> None:
    """Waits until no other thread imports anything: a half-imported module stays so in a forked child.

    The wait is limited, because that thread may be waiting for this one.
    """
    deadline = time.monotonic() + _IMPORT_SECONDS
    while any(lock and lock.owner for lock in _import_locks_of_others().values()) and time.monotonic() < deadline:
        time.sleep(0.002)


def _import_locks_of_others() -> dict[str, Any]:
    """Python's import locks that this thread doesn't hold, by module name; None for a deleted one."""
    bootstrap: Any = getattr(importlib, "_bootstrap", None)
    locks = {name: reference() for name, reference in list(getattr(bootstrap, "_module_locks", {}).items())}
    return {name: lock for name, lock in locks.items() if getattr(lock, "owner", None) != threading.get_ident()}


def _forget_private_fds() -> None:
    """Closes the pipes of the parent's workers in a forked child, so that the parent notices when they end."""
    global _start_lock  # noqa: PLW0603  another thread of the parent may have held it
    _start_lock = threading.RLock()
    _renew_numpy_lock()
    for name in _import_locks_of_others():  # their threads aren't here; Python creates new locks
        importlib._bootstrap._module_locks.pop(name, None)  # type: ignore[attr-defined]  # noqa: SLF001
    for fd in private_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    private_fds.clear()


def _renew_numpy_lock() -> None:
    """Releases the lock of numpy's generator in a forked child: a thread of the parent may have held it."""
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        with contextlib.suppress(AttributeError):  # still being imported: not in use yet
            numpy_random.mtrand._rand._bit_generator.lock._at_fork_reinit()  # noqa: SLF001  as threading does


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_private_fds)


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass
        except OSError as error:  # a broken pipe
            if not is_refusal(error):
                raise


def renew_output() -> None:
    """Releases the locks of a worker's streams and loggers: another thread of the parent may have held them.

    The streams are initialised again in place, so that references to them stay valid. Their buffered output belongs to
    the parent and is dropped.
    """
    handlers = getattr(sys.modules.get("logging"), "_handlerList", ())  # weak references to every handler
    streams = {id(stream): stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
    for stream in (getattr(reference(), "stream", None) for reference in handlers):
        streams[id(stream)] = stream
    for stream in streams.values():
        if type(stream) is io.TextIOWrapper and type(stream.buffer) is io.BufferedWriter:
            with contextlib.suppress(OSError, ValueError):  # closed
                io.BufferedWriter.__init__(stream.buffer, stream.buffer.raw)
                layout = (stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through)
                io.TextIOWrapper.__init__(stream, stream.buffer, *layout)
