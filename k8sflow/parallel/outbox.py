"""A worker's results on their way to the parent: collected, pickled, sent."""

from __future__ import annotations

import pickle
from typing import Any

from .channels import Channel, read_exactly
from .failures import told_of
from .memory import LARGE_BYTES, STREAM, address_of
from .messages import FAILED, HEADER, PART, PIECE
from .pickling import by_value_pickler, dumps
from .streams import flush_output

_NUMBERS = frozenset({bool, int, float, type(None)})
_NUMBER_BYTES = 9  # pickled; a large int takes more, which does no harm


class Outbox:
    """Collects pickled results and sends them to the parent."""

    def __init__(self, channel: Channel, *, by_value: bool) -> None:
        self._channel = channel
        self._by_value = by_value
        self._pieces: list[Any] = []
        self._buffers: list[memoryview] = []
        kind = by_value_pickler() if by_value else pickle.Pickler
        self._pickler = kind(self, 5, buffer_callback=self._keep)
        self._run: list[Any] = []  # results that aren't pickled yet
        self._count = 0
        self.start = 0
        self.size = 0

    def add(self, value: object) -> None:
        """Notes the next result. Pickles it at once, unless it can't change, for the function may change it later."""
        if type(value) in _NUMBERS:
            self._run.append(value)
            self._count += 1
            self.size += _NUMBER_BYTES
            return
        self._end_run()
        pieces, buffers, size = len(self._pieces), len(self._buffers), self.size
        try:
            self._pickler.dump([value])
        except Exception:  # noqa: BLE001  pickling is the user's code too; what cloudpickle says then is raised
            del self._pieces[pieces:]
            del self._buffers[buffers:]
            self.size = size
            self.write(dumps([value], by_value=self._by_value))
        finally:
            self._pickler.clear_memo()
        self._count += 1

    def _end_run(self) -> None:
        if self._run:
            self._pieces.append(pickle.dumps(self._run, 5))
            self._run.clear()

    def write(self, piece: Any) -> None:
        """The pickler's file. Large bytes come here as they are, not as copies."""
        self._pieces.append(piece)
        self.size += len(piece)

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """The pickler's question whether a buffer belongs into the stream."""
        view = buffer.raw()
        if len(view) < LARGE_BYTES:
            return True
        self._buffers.append(view)
        self.size += len(view)
        return False

    def flush(self, kind: int, seconds: float) -> None:
        """Sends what is collected. With addresses in it, waits until the parent has read: the memory may change."""
        flush_output()
        self._end_run()
        large = [piece for piece in self._pieces if len(piece) >= LARGE_BYTES] + self._buffers
        table = b""
        if large:
            places = [(address_of(piece) if len(piece) >= LARGE_BYTES else 0, len(piece)) for piece in self._pieces]
            places += [(address_of(view), len(view)) for view in self._buffers]
            table = b"".join(PIECE.pack(*place) for place in places)
        body = b"".join([table, *(piece for piece in self._pieces if len(piece) < LARGE_BYTES)])
        pieces = len(self._pieces) if large else 0
        head = HEADER.pack(kind, self.start, self._count, seconds, len(body), pieces, len(self._buffers))
        self._channel.write(head + body)
        if large and read_exactly(self._channel, 1) == STREAM:
            for piece in large:
                self._channel.write(piece)
        self.start += self._count
        self._count = self.size = 0
        self._pieces.clear()
        self._buffers.clear()

    def fail(self, error: BaseException, index: int, items: Any) -> None:
        """Sends what was done before, then the exception."""
        self.flush(PART, 0.0)
        body = pickle.dumps(told_of(error, index, items, by_value=self._by_value), 5)
        self._channel.write(HEADER.pack(FAILED, index, 0, 0.0, len(body), 0, 0) + body)
