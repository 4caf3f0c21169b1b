"""Ctrl-C and its like: the first one cancels, the second one leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_CANCELLED_EXIT_CODE = 130
_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


@contextlib.contextmanager
def interrupts(on_first: Callable[[], None]) -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread at the first SIGINT, SIGTERM or SIGHUP.

    Args:
        on_first: Called once before that.
    """
    seen = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            os._exit(_CANCELLED_EXIT_CODE)
        seen = True
        on_first()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
