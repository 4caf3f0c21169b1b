"""A fork, and what a forked child must not keep of its parent: locks, descriptors, output."""

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

_start_lock = threading.RLock()  # re-entrant: the collector may end a forgotten generator while workers start
_IMPORT_SECONDS = 10.0  # so long a start waits for the imports of other threads
private_fds: set[int] = set()  # ends of pipes that a forked child of this process must not keep open


def start_lock() -> contextlib.AbstractContextManager[bool]:
    """The lock around the start and the end of workers, one after the other in this process."""
    return _start_lock


def fork_process() -> int:
    """As `os.fork`, without Python 3.12's warning about threads; `native.fork_hazard` looks for those that matter."""
    if sys.version_info >= (3, 12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()
    return os.fork()


def let_imports_finish() -> None:
    """Waits until no other thread imports anything: what is half imported stays so in a forked child.

    Not for ever, for that thread may be waiting for this one.
    """
    deadline = time.monotonic() + _IMPORT_SECONDS
    while any(lock and lock.owner for lock in _import_locks_of_others().values()) and time.monotonic() < deadline:
        time.sleep(0.002)


def _import_locks_of_others() -> dict[str, Any]:
    """Python's lock of each module that isn't in this thread's hands, by the module's name; None where it is gone."""
    bootstrap: Any = getattr(importlib, "_bootstrap", None)
    locks = {name: reference() for name, reference in list(getattr(bootstrap, "_module_locks", {}).items())}
    return {name: lock for name, lock in locks.items() if getattr(lock, "owner", None) != threading.get_ident()}


def _forget_private_fds() -> None:
    """In any forked child: closes the pipes of its parent's workers, so that their end is seen by who waits for it."""
    global _start_lock  # noqa: PLW0603  another thread of the parent may have held them
    _start_lock = threading.RLock()
    _renew_numpy_lock()
    for name in _import_locks_of_others():  # those threads aren't here; Python makes a new lock when it needs one
        importlib._bootstrap._module_locks.pop(name, None)  # type: ignore[attr-defined]  # noqa: SLF001
    for fd in private_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    private_fds.clear()


def _renew_numpy_lock() -> None:
    """Frees numpy's generator in a forked child, where a thread that is not here may have been drawing from it."""
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        with contextlib.suppress(AttributeError):  # while another thread still imports it, nobody holds it
            numpy_random.mtrand._rand._bit_generator.lock._at_fork_reinit()  # noqa: SLF001  as threading does it


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
    """Frees the streams of a worker, and of its loggers: another thread of the parent may have been writing to them.

    They are made anew in place, so that whoever holds one goes on with it. What they had collected is the parent's.
    """
    handlers = getattr(sys.modules.get("logging"), "_handlerList", ())  # weak references, also to those of no logger
    streams = {id(stream): stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
    for stream in (getattr(reference(), "stream", None) for reference in handlers):
        streams[id(stream)] = stream
    for stream in streams.values():
        if type(stream) is io.TextIOWrapper and type(stream.buffer) is io.BufferedWriter:
            with contextlib.suppress(OSError, ValueError):  # closed
                io.BufferedWriter.__init__(stream.buffer, stream.buffer.raw)
                layout = (stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through)
                io.TextIOWrapper.__init__(stream, stream.buffer, *layout)
