"""The rate at which requests are sent to an API server."""

from __future__ import annotations

import asyncio


class RateLimiter:
    """Allows ``qps`` requests per second, and a burst after a pause (generic cell rate algorithm).

    When the server sends 429 with a time, nothing is sent until then, and no burst after it: what was refused is what
    many requests at once have asked for.
    """

    def __init__(self, qps: float = 50.0, burst: int = 100) -> None:
        self._interval = 1.0 / qps
        self._slack = burst / qps
        self._next = 0.0
        self._holds = 0

    async def acquire(self) -> None:
        """Waits until the next request may be sent; callers are served in their order."""
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            due = self._next = max(self._next, now - self._slack) + self._interval
            holds = self._holds
            if due > now:
                await asyncio.sleep(due - now)
            if self._holds == holds:
                return

    @property
    def is_exhausted(self) -> bool:
        """True if a request would have to wait."""
        return self._next > asyncio.get_running_loop().time()

    def hold(self, seconds: float) -> None:
        """Sends nothing for some seconds; requests that were about to be sent line up again."""
        self._holds += 1
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)
