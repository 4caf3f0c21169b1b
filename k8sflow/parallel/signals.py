"""Signals, held while workers are started or reaped."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from typing import Any

_HELD_SIGNALS = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
}


@contextlib.contextmanager
def interrupts_held() -> Generator[set[Any], None, None]:
    """Signals wait while workers are started or reaped, so that none is lost from sight. Yields the old mask."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield set()
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def leave_it_to_the_parent(_signal: int, _frame: object) -> None:
    """Ctrl-C reaches the whole group; what it means is for the parent to say.

    A handler, where SIG_IGN would be inherited by the programs that the function starts.
    """
