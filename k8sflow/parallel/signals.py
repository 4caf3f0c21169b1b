"""Signals, held while workers are started or reaped, and told from what the system refuses."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any

# The module below `signal`, which has no enums: a worker would begin by copying all the pages that these touch.
_calls: Any = getattr(signal, "_signal", signal)
_HELD_SIGNALS = {
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
}


def set_handler(number: int, handler: Any) -> None:
    """Sets a signal's handler, without loading the enums of `signal`."""
    _calls.signal(number, handler)


class HeldSignals:
    """What was there before the signals were held."""

    def __init__(self) -> None:
        self.handlers: dict[int, Any] = {}
        self.mask: set[Any] = set()

    def restore_handlers(self) -> None:
        for number, handler in self.handlers.items():
            _calls.signal(number, handler)

    def restore_for_worker(self) -> None:
        """The handlers of a worker: Ctrl-C is left to the parent, SIGTERM ends it, others are as they were."""
        self.handlers[signal.SIGINT] = leave_it_to_the_parent
        if _calls.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            self.handlers[signal.SIGTERM] = 0  # SIG_DFL
        self.restore_handlers()
        self.restore_mask()

    def restore_mask(self) -> None:
        _calls.pthread_sigmask(signal.SIG_SETMASK, self.mask)


@contextlib.contextmanager
def interrupts_held() -> Generator[HeldSignals, None, None]:
    """Signals wait while workers are started or reaped, so that none is lost from sight.

    A forked child is born with the mask. For this process the mask is not enough: what the main thread blocks, another
    thread takes, be it one of OpenBLAS, and Python then runs the handler in the main thread all the same. So handlers
    wait too.
    """
    held = HeldSignals()
    came: list[tuple[int, FrameType | None]] = []
    if not hasattr(signal, "pthread_sigmask"):
        yield held
        return
    held.mask = _calls.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        _calls.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
        if threading.current_thread() is threading.main_thread():
            for number in _HELD_SIGNALS:
                handler = _calls.getsignal(number)
                if callable(handler):
                    held.handlers[number] = handler
                    _calls.signal(number, lambda *call: came.append(call))
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


def is_refusal(error: OSError) -> bool:
    """Whether the system refused something. A TimeoutError that a handler of SIGALRM raises has no errno."""
    return error.errno is not None


@contextlib.contextmanager
def refusals_ignored() -> Generator[None, None, None]:
    """Goes on where the system refuses something that can be done without."""
    try:
        yield
    except OSError as error:
        if not is_refusal(error):
            raise
