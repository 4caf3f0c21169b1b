"""Signals, held while workers are started or reaped, and told from what the system refuses."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

_HELD_SIGNALS = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
}


class HeldSignals:
    """What was there before the signals were held."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self.mask: set[Any] = set()

    def restore_handlers(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def restore_mask(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


@contextlib.contextmanager
def interrupts_held() -> Generator[HeldSignals, None, None]:
    """Signals wait while workers are started or reaped, so that none is lost from sight.

    A forked child is born with the mask. For this process the mask is not enough: what the main thread blocks, another
    thread takes, be it one of OpenBLAS, and Python then runs the handler in the main thread all the same. So handlers
    wait too.
    """
    held = HeldSignals()
    came: list[tuple[int, FrameType | None]] = []
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield held
        return
    held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
        if threading.current_thread() is threading.main_thread():
            for number in _HELD_SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    held.handlers[number] = handler
                    signal.signal(number, lambda *call: came.append(call))
        yield held
    finally:
        try:
            held.restore_handlers()
        finally:
            held.restore_mask()
    for number, frame in came:
        held.handlers[number](number, frame)


def leave_it_to_the_parent(_signal: int, _frame: object) -> None:
    """Ctrl-C reaches the whole group; what it means is for the parent to say.

    A handler, where SIG_IGN would be inherited by the programs that the function starts.
    """


@contextlib.contextmanager
def refusals_ignored() -> Generator[None, None, None]:
    """Goes on where the system refuses something that can be done without.

    A TimeoutError that a handler of SIGALRM raises in the middle is an OSError too, but with no errno; it is for the
    caller.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
