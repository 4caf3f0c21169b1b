"""The remaining items in chunks, handed out lowest first."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .call import Call

SLICE_SECONDS = 0.02  # a worker returns the rest of its chunk after this time
_TINY_SECONDS = 0.001  # a chunk that is expected to take less isn't split for balance
LAZY_CHUNK_ITEMS = 256  # the most items of an iterator in one chunk


@dataclass(order=True)
class Chunk:
    """Items `start` to `stop`. Those of an iterator are kept here, with the pickle to be sent."""

    start: int
    stop: int
    items: list[tuple[Any, Any]] | None = field(default=None, compare=False)  # item, its pickle

    def __len__(self) -> int:
        return self.stop - self.start

    def before(self, index: int) -> Chunk:
        stop = min(max(index, self.start), self.stop)
        return Chunk(self.start, stop, self.items and self.items[: stop - self.start])

    def after(self, index: int) -> Chunk:
        start = min(max(index, self.start), self.stop)
        return Chunk(start, self.stop, self.items and self.items[start - self.start :])


class Work:
    """Hands out chunks, lowest first, and takes back items that a worker didn't reach.

    Args:
        call: The call.
        pack: Converts an iterator's item, given its index, to the form that is sent.
        largest: The most items in a chunk, unless the call sets the size.
    """

    def __init__(self, call: Call, pack: Callable[[Any, int], Any], largest: float = math.inf) -> None:
        self._call = call
        self._pack = pack
        self._iterator = call.items if isinstance(call.items, Iterator) else None
        self._drained = False
        self._largest = LAZY_CHUNK_ITEMS if self._iterator is not None else largest
        self._returned: list[Chunk] = []
        self._next = 0
        self._left = call.length or 0
        self._item_seconds = math.inf
        self.slow = False  # True if the iterator is slow: the next chunk may take long

    @property
    def lowest(self) -> int:
        """The index of the first item that hasn't been handed out."""
        return self._returned[0].start if self._returned else self._next

    def take(self, before: float) -> Chunk | None:
        """The next chunk; None if it would start at `before` or later, or if there is none at the moment."""
        if self.lowest >= before or (self._drained and not self._returned):
            return None
        if not self._returned:
            fresh = (
                self._pull(self._iterator) if self._iterator is not None else Chunk(self._next, self._call.length or 0)
            )
            self._next = fresh.stop
            self._put(fresh)
        if not self._returned:
            return None
        chunk = heapq.heappop(self._returned)
        head = chunk.before(chunk.start + self._size())
        self._put(chunk.after(head.stop))
        self._left -= len(head)
        return head

    def learn(self, done: int, seconds: float, rest: Chunk) -> None:
        """Records the time of a chunk's items, and takes back the rest of the chunk."""
        if done:
            self._item_seconds = seconds / done
        self._left += len(rest)
        self._put(rest)

    def _put(self, chunk: Chunk) -> None:
        if chunk:
            heapq.heappush(self._returned, chunk)

    def _size(self) -> int:
        """The size of the next chunk: half of an even share, or all of it if that takes microseconds."""
        if self._call.chunk_size:
            return self._call.chunk_size
        if self._iterator is not None:
            return LAZY_CHUNK_ITEMS
        half = self._left / self._call.workers / 2
        tiny = _TINY_SECONDS / self._item_seconds if self._item_seconds else self._left
        return int(max(1, min(max(half, tiny), self._largest)))

    def _pull(self, iterator: Iterator[Any]) -> Chunk:
        """The next items of an iterator: about a slice of work, as far as they arrive within a slice of time."""
        guess = SLICE_SECONDS / 2 / self._item_seconds if self._item_seconds else math.inf
        size = self._call.chunk_size or max(1, int(min(guess, self._largest)))
        items: list[tuple[Any, Any]] = []
        deadline = time.perf_counter() + SLICE_SECONDS
        for item in itertools.islice(iterator, size):
            items.append((item, self._pack(item, self._next + len(items))))
            if time.perf_counter() > deadline and not self._call.chunk_size:
                break
        self.slow = time.perf_counter() > deadline
        self._drained = not items  # an iterator isn't advanced again after its end
        return Chunk(self._next, self._next + len(items), items)
