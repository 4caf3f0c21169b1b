"""Detection of forked workers that wait for a thread which only the parent has.

A fork copies one thread. A lock that another thread holds, a future that it would complete, or an event loop that it
runs never changes in the copy. Such a wait is visible from outside: every thread of the worker is in futex(2), without
a timeout, on a futex that no other process can wake.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from types import FrameType
from typing import NoReturn

from .limits import lines_of
from .signals import is_refusal, set_handler

LOOK_SECONDS = 2.0  # silence of all workers before the parent looks; a wait that is seen twice is a deadlock
STUCK_SIGNAL: int | None = signal.SIGRTMIN + 9 if hasattr(signal, "SIGRTMIN") else None
ADVICE = (
    "A forked worker has none of the parent's other threads: a lock that one of them holds stays held, and a pool, "
    "future or event loop that needs them never answers.\n"
    'Create the lock, pool, future or event loop inside the function, or use backend="threads".'
)
_FUTEX = {"x86_64": "202", "aarch64": "98"}.get(os.uname().machine)  # its number in /proc/<pid>/syscall
_WAITS = frozenset({0, 9})  # FUTEX_WAIT, FUTEX_WAIT_BITSET
_OPERATION, _PRIVATE = 0x7F, 0x80
_Wait = tuple[str, ...]  # where each thread waits, and how often it has been woken


class DeadlockWatch:
    """Looks at workers that have been silent for a while."""

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}
        self._interrupted: set[int] = set()

    def first_dead(self, pids: Iterable[int]) -> int | None:
        """The pid of a worker that waits forever in native code; those that wait in Python raise an error there."""
        for pid in pids:
            wait = endless_wait(pid)
            stuck = wait is not None and self._waits.get(pid) == wait
            self._waits.pop(pid, None)
            if wait is not None:
                self._waits[pid] = wait
            if not stuck or STUCK_SIGNAL is None:
                continue
            if pid in self._interrupted:
                return pid
            self._interrupted.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, STUCK_SIGNAL)
        return None


def endless_wait(pid: int) -> _Wait | None:
    """The waits of a process's threads if none of them can end; None if one may, or if that is unknown."""
    if _FUTEX is None or _signals_caught(str(pid)) & ~_signals_caught("self") & ~_bit(STUCK_SIGNAL):
        return None  # a signal handler that the function has installed may end the wait
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError as error:
        if not is_refusal(error):
            raise
        return None
    waits = [_futex_wait(f"/proc/{pid}/task/{thread}") for thread in sorted(threads)]
    return None if None in waits or not waits else tuple(filter(None, waits))


def _futex_wait(thread: str) -> str | None:
    """Format: proc(5), "syscall": the number, six arguments, two pointers; futex(2) has the operation and flags."""
    words = " ".join(lines_of(f"{thread}/syscall")).split()
    if len(words) < 7 or words[0] != _FUTEX:  # noqa: PLR2004
        return None
    operation, timeout = int(words[2], 16), int(words[4], 16)
    if timeout or not operation & _PRIVATE or operation & _OPERATION not in _WAITS:
        return None
    switches = [line for line in lines_of(f"{thread}/status") if line.startswith("voluntary_ctxt_switches")]
    return f"{words[1]} {switches}"


def _signals_caught(process: str) -> int:
    masks = [line.split()[1] for line in lines_of(f"/proc/{process}/status") if line.startswith("SigCgt:")]
    return int(masks[0], 16) if masks else 0


def _bit(number: int | None) -> int:
    return 1 << (number - 1) if number else 0


def raise_when_stuck() -> None:
    """Lets the parent end an endless wait of this worker with an error."""
    if STUCK_SIGNAL is not None:
        set_handler(STUCK_SIGNAL, _raise_stuck)


def _raise_stuck(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise RuntimeError(f"parallel_map: the function waits forever.\n{ADVICE}")
