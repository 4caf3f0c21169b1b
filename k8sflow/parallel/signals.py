"""Signals, held while workers are started or reaped, and errors of the system, as opposed to those of handlers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any

# The module below `signal`, which has no enums: using them would make each worker copy memory pages first.
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
    """The handlers and the mask from before the signals were held."""

    def __init__(self) -> None:
        self.handlers: dict[int, Any] = {}
        self.mask: set[Any] = set()

    def restore_handlers(self) -> None:
        for number, handler in self.handlers.items():
            _calls.signal(number, handler)

    def restore_for_worker(self) -> None:
        """Sets the handlers of a worker: the parent handles Ctrl-C, SIGTERM ends the worker, others are unchanged."""
        self.handlers[signal.SIGINT] = ignore_interrupt
        if _calls.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            self.handlers[signal.SIGTERM] = 0  # SIG_DFL
        self.restore_handlers()
        self.restore_mask()

    def restore_mask(self) -> None:
        _calls.pthread_sigmask(signal.SIG_SETMASK, self.mask)


@contextlib.contextmanager
def interrupts_held() -> Generator[HeldSignals, None, None]:
    """Delays signals while workers are started or reaped, so that no worker is lost.

    A forked child inherits the mask. For this process the mask is not enough: another thread, such as one of OpenBLAS,
    takes a signal that the main thread blocks, and Python then runs the handler in the main thread anyway. So handlers
    are delayed too.
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


def ignore_interrupt(_signal: int, _frame: object) -> None:
    """Ignores Ctrl-C, which reaches the whole group; the parent handles it.

    A handler, because SIG_IGN would be inherited by programs that the function starts.
    """


def is_refusal(error: OSError) -> bool:
    """True if the error comes from the system. A TimeoutError that a SIGALRM handler raises has no errno."""
    return error.errno is not None


@contextlib.contextmanager
def refusals_ignored() -> Generator[None, None, None]:
    """Ignores errors of the system, for calls that are optional."""
    try:
        yield
    except OSError as error:
        if not is_refusal(error):
            raise
