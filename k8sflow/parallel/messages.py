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
from .deaths import WorkerDied
from .failures import add_note, rebuilt, short_repr
from .memory import TAKEN, Memory, Stream
from .pickling import dumps
from .work import Chunk

COMMAND = struct.Struct("=qqq")  # start, stop, bytes of pickles that follow
HEADER = struct.Struct("=Bqqdqqq")  # kind, start, results, seconds, bytes, pieces of the stream, buffers beside it
PIECE = struct.Struct("=Qq")  # address in the worker's memory (0: the bytes follow), length
PART, DONE, FAILED = range(3)  # kinds of messages: more of this chunk follows; chunk done or given back; failure


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
    """What a worker says: results of consecutive items."""

    start: int
    values: list[Any]
    seconds: float
    done: bool  # the chunk ends here: all of it is done, or the rest given back


def receive_reply(channel: WorkerEnd) -> Reply:
    """One message of a worker.

    Raises:
        WorkerDied: The worker ended.
        BaseException: What the function raised.
    """
    kind, start, count, seconds, size, pieces, buffers = HEADER.unpack(read_exactly(channel, HEADER.size))
    body = read_exactly(channel, size)
    if kind == FAILED:
        raise rebuilt(pickle.loads(body))
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
    """The results, which the worker pickled in runs: lists of numbers, and lists of one where it is something else."""
    values: list[Any] = []
    while len(values) < count:
        values += unpickler(stream).load()
    return values
