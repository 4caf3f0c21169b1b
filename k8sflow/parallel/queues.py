"""Objects of multiprocessing that a forked worker shares with the caller: queues, and proxies of a manager."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

_UTIL = ("multiprocessing.util", "multiprocess.util")
_FLUSH_SECONDS = 10.0


def renew_shared_objects() -> None:
    """Gives inherited queues a thread, and inherited proxies a connection, of this worker's own.

    As a process of multiprocessing does at its start.
    """
    for name in _UTIL:
        if run := getattr(sys.modules.get(name), "_run_after_forkers", None):
            run()


def flush_queues() -> None:
    """Waits until all that was put into queues has reached their pipes: the worker may be killed afterwards.

    Raises:
        RuntimeError: A queue is full.
    """
    deadline = time.monotonic() + _FLUSH_SECONDS
    for queue in _used_queues():
        while queue._thread.is_alive() and not _is_flushed(queue):  # noqa: SLF001
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"parallel_map: items that the function put into a multiprocessing.Queue are unread after "
                    f"{_FLUSH_SECONDS:.0f} s, and would be lost with the worker.\n"
                    "The queue's pipe is full, and nothing reads it while parallel_map runs.\n"
                    "Return the items from the function, or read the queue in a thread, or use a Manager's Queue."
                )
            time.sleep(0.001)


def _is_flushed(queue: Any) -> bool:
    """True if its thread has sent everything and waits for more."""
    return not queue._buffer and bool(queue._notempty._waiters)  # noqa: SLF001


def _used_queues() -> Iterator[Any]:
    for name in _UTIL:
        queues: Any = sys.modules.get(name.replace("util", "queues"))
        if hasattr(queues, "SimpleQueue"):  # the last class of the module: it is imported completely
            for shared in list(sys.modules[name]._afterfork_registry.values()):  # noqa: SLF001
                if isinstance(shared, queues.Queue) and shared._thread and not shared._joincancelled:  # noqa: SLF001
                    yield shared
