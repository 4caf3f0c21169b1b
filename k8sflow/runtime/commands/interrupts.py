"""Ctrl-C and its like: the first signal cancels, and only another Ctrl-C leaves before that is done.

Supervisors signal a process and its group within microseconds (``timeout``), a closed terminal sends SIGHUP and
SIGTERM, and CI systems follow SIGINT with SIGTERM after some seconds. None of that is an impatient person, and a driver
that left because of it would leave its tasks running; those who mean it have SIGKILL.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import FrameType

from k8sflow.errors import RunError
from k8sflow.interrupted import CANCELLED_EXIT_CODE

# Signals within this time of the first are one signal that came by several ways.
_TOGETHER_SECONDS = 1.0
_SIGNALS = [
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if (number := getattr(signal, name, None)) is not None
]


@contextlib.contextmanager
def interrupts(
    on_first: Callable[[], None],
    last_word: str = "",
    before_leaving: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread at the first SIGINT, SIGTERM or SIGHUP.

    A SIGINT that comes a second later or more leaves the process at once; every other signal is ignored from then on,
    also after the block, where the process only has to end.

    Args:
        on_first: Called once before that.
        last_word: What is printed by the SIGINT that leaves, whatever else is being written then.
        before_leaving: Called by it after that; has to return within a few seconds.
        clock: The time in seconds.
    """
    first: float | None = None

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if first is not None:
            if number == signal.SIGINT and clock() - first >= _TOGETHER_SECONDS:
                _leave(last_word, before_leaving)
            return
        first = clock()
        # It may have come in the middle of a write to the stream that is written to here, or because that was closed.
        with contextlib.suppress(RuntimeError, OSError, RunError):
            on_first()
        raise KeyboardInterrupt

    # Under nohup the hang-up of a terminal is to be ignored.
    ignored = {number for number in _SIGNALS if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN}
    before = {number: signal.signal(number, handle) for number in _SIGNALS if number not in ignored}
    restore = _unblock(before)
    try:
        yield
    finally:
        restore()
        for number, handler in before.items():
            if first is None:
                signal.signal(number, handler)
            # Python takes our handler away when it ends, and would be killed then. Until that moment a later SIGINT
            # leaves, in case something holds the end up.
            elif number == signal.SIGINT:
                atexit.register(signal.signal, number, signal.SIG_IGN)
            else:
                signal.signal(number, signal.SIG_IGN)


def _unblock(numbers: Collection[int]) -> Callable[[], object]:
    """Unblocks signals, which the flow may have blocked; returns a function that blocks them again."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows can't block signals
        return lambda: None
    return partial(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers))


def _leave(last_word: str, before_leaving: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{last_word}\n".encode(errors="replace") if last_word else b"")
    try:
        before_leaving()
    finally:
        os._exit(CANCELLED_EXIT_CODE)
