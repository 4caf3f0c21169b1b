"""Messages between a worker process and its parent: chunks one way, results the other."""

from __future__ import annotations

import functools
import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .channels import Channel, WorkerEnd, read_exactly
from .failures import Stopped, WorkerDied, add_note, failure, rebuilt, short_repr
from .forking import flush_output
from .memory import LARGE_BYTES, STREAM, TAKEN, Memory, Stream, address_of
from .pickling import by_value_pickler, dumps, dumps_inherited
from .work import Chunk

COMMAND = struct.Struct("=qqq")  # start, stop, bytes of pickles that follow
HEADER = struct.Struct("=Bqqdqqq")  # kind, start, results, seconds, bytes, pieces of the stream, further buffers
PIECE = struct.Struct("=Qq")  # address in the worker's memory (0: the bytes follow), length
PART, DONE, FAILED = range(3)  # kinds of messages: more of this chunk follows; chunk done or returned; failure


def pickled_item(item: object, index: int, *, by_value: bool = False) -> bytes:
    try:
        return dumps(item, by_value=by_value)
    except Exception as error:  # pickling is the user's code
        add_note(error, f"parallel_map: item {index} can't be sent to a worker: {short_repr(item)}")
        raise


def send_chunk(channel: Channel, chunk: Chunk) -> None:
    payload = b""
    if chunk.items is not None:
        pickles = [packed for _, packed in chunk.items]
        payload = b"".join([struct.pack(f"={len(pickles)}q", *map(len, pickles)), *pickles])
    channel.write(COMMAND.pack(chunk.start, chunk.stop, len(payload)) + payload)


@dataclass
class Reply:
    """A worker's message: results of consecutive items."""

    start: int
    values: list[Any]
    seconds: float
    done: bool  # the last message of the chunk: the rest of it is done or returned


def receive_reply(channel: WorkerEnd) -> Reply:
    """One message of a worker.

    Raises:
        WorkerDied: The worker died.
        BaseException: An exception of the function.
    """
    kind, start, count, seconds, size, pieces, buffers = HEADER.unpack(read_exactly(channel, HEADER.size))
    body = read_exactly(channel, size)
    if kind == FAILED:
        sent, note = pickle.loads(body)
        error = rebuilt(sent)
        add_note(error, note)
        raise Stopped(error) if isinstance(error, StopIteration) else error
    try:
        values = _load_results(channel, body, count, pieces, buffers)
    except WorkerDied:
        raise
    except Exception as error:  # unpickling is the user's code
        add_note(error, f"parallel_map: raised by unpickling the results of the items {start} to {start + count - 1}")
        raise
    return Reply(start, values, seconds, kind == DONE)


def _load_results(channel: WorkerEnd, body: bytearray, count: int, pieces: int, buffers: int) -> list[Any]:
    if not pieces:
        return _load_runs(pickle.Unpickler, io.BytesIO(body), count)
    memory = Memory(channel)
    split = (pieces + buffers) * PIECE.size
    table = list(PIECE.iter_unpack(body[:split]))
    stream: Any = Stream(table[:pieces], memoryview(body)[split:], memory)
    large = (memory.fetch(address, length) for address, length in table[pieces:])
    values = _load_runs(functools.partial(pickle.Unpickler, buffers=large), stream, count)
    if not memory.streaming:
        channel.write(TAKEN)
    return values


def _load_runs(unpickler: Callable[[Any], pickle.Unpickler], stream: Any, count: int) -> list[Any]:
    """The results, which the worker pickled in runs: lists of numbers, and lists of one for any other value."""
    values: list[Any] = []
    while len(values) < count:
        values += unpickler(stream).load()
    return values


_NUMBERS = frozenset({bool, int, float, type(None)})
_NUMBER_BYTES = 9  # pickled; a large int takes more, which is harmless


class Outbox:
    """Collects pickled results and sends them to the parent."""

    def __init__(self, channel: Channel, *, by_value: bool) -> None:
        self._channel = channel
        self._by_value = by_value
        self._pieces: list[Any] = []
        self._buffers: list[memoryview] = []
        kind = by_value_pickler() if by_value else pickle.Pickler
        self._pickler = kind(self, 5, buffer_callback=self._keep)
        self._run: list[Any] = []  # results that are not pickled yet
        self._count = 0
        self.start = 0
        self.size = 0

    def add(self, value: object) -> None:
        """Adds the next result. Pickles it at once unless it is immutable: the function may change it later."""
        if type(value) in _NUMBERS:
            self._run.append(value)
            self._count += 1
            self.size += _NUMBER_BYTES
            return
        self._end_run()
        pieces, buffers, size = len(self._pieces), len(self._buffers), self.size
        try:
            self._pickler.dump([value])
        except Exception:  # noqa: BLE001  pickling is the user's code too; an error of cloudpickle is raised
            del self._pieces[pieces:]
            del self._buffers[buffers:]
            self.size = size
            self.write(dumps([value], by_value=True) if self._by_value else dumps_inherited([value]))
        finally:
            self._pickler.clear_memo()
        self._count += 1

    def _end_run(self) -> None:
        if self._run:
            self._pieces.append(pickle.dumps(self._run, 5))
            self._run.clear()

    def write(self, piece: Any) -> None:
        """Takes the pickler's output. Large bytes arrive as they are, not as copies."""
        self._pieces.append(piece)
        self.size += len(piece)

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Tells the pickler whether a buffer belongs in the stream."""
        view = buffer.raw()
        if len(view) < LARGE_BYTES:
            return True
        self._buffers.append(view)
        self.size += len(view)
        return False

    def flush(self, kind: int, seconds: float) -> None:
        """Sends the collected results. Waits until the parent has read large buffers, since their memory may change."""
        flush_output()
        self._end_run()
        large = [piece for piece in self._pieces if len(piece) >= LARGE_BYTES] + self._buffers
        table = b""
        if large:
            entries = [(address_of(piece) if len(piece) >= LARGE_BYTES else 0, len(piece)) for piece in self._pieces]
            entries += [(address_of(view), len(view)) for view in self._buffers]
            table = b"".join(PIECE.pack(*entry) for entry in entries)
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
        """Sends the results so far, then the exception."""
        self.flush(PART, 0.0)
        body = pickle.dumps(failure(error, index, items, by_value=self._by_value), 5)
        self._channel.write(HEADER.pack(FAILED, index, 0, 0.0, len(body), 0, 0) + body)
