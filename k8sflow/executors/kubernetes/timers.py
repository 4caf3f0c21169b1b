"""Named timers of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """Timers that are set once each, until they are dropped."""

    def __init__(self) -> None:
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        """Calls a function later, unless the timer is set already."""
        if name not in self._handles:
            self._handles[name] = asyncio.get_running_loop().call_later(seconds, then)

    def drop(self, *names: str) -> None:
        """Drops timers; all if none is named."""
        for name in names or list(self._handles):
            if (handle := self._handles.pop(name, None)) is not None:
                handle.cancel()
