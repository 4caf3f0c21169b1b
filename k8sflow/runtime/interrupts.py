"""Ctrl-C and its like: the first one cancels, the second one leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from k8sflow.errors import RunError

_CANCELLED_EXIT_CODE = 130
_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


@contextlib.contextmanager
def interrupts(on_first: Callable[[], None], last_word: str = "") -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread at the first SIGINT, SIGTERM or SIGHUP.

    Args:
        on_first: Called once before that.
        last_word: What the second one says before it leaves, whatever else is being written then.
    """
    seen = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{last_word}\n".encode(errors="replace") if last_word else b"")
            os._exit(_CANCELLED_EXIT_CODE)
        seen = True
        # It may have come in the middle of a write to the stream that is written to here, or because that is gone.
        with contextlib.suppress(RuntimeError, OSError, RunError):
            on_first()
        raise KeyboardInterrupt

    # Under nohup the hang-up of a terminal is to be ignored.
    ignored = {number for number in _SIGNALS if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN}
    before = {number: signal.signal(number, handle) for number in _SIGNALS if number not in ignored}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, before)  # the flow may have blocked them
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
