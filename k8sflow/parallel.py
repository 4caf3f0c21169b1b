"""Map a function over items on every core: `parallel_map`, `parallel_imap`, `parallel_imap_unordered`.

    from k8sflow import parallel_map

    totals = parallel_map(lambda i: matrix[i : i + 1000].sum(), range(0, len(matrix), 1000))

The file stands alone: the standard library, and cloudpickle, threadpoolctl and numpy where they are installed.

How it works, on Linux:

- **Start.** One worker per core is forked after the data exists. The function and a sized iterable are inherited,
  so nothing of them is pickled and nothing copied.
- **Work.** The parent hands out ranges of indices. A range is a quarter of an even share of what is left, but a
  worker keeps it for 20 ms only and gives the rest back: cheap items cost no messages, dear ones never pile up.
- **Results** are pickled into a pipe. Large buffers are not: the worker sends their addresses, the parent reads them
  from the worker's memory (`process_vm_readv`) into memory of its own, and the worker goes on when that is done.
- **Waiting.** The parent sleeps in one `poll` over the pipes and the workers' pidfds.
- **The end**, good or bad, is the same: every worker gets SIGKILL and is reaped. If the parent itself dies, the kernel
  kills the workers (`_die_with_parent`).

Elsewhere (macOS, Windows) workers are fresh interpreters, and what they need is pickled with cloudpickle.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import heapq
import importlib
import io
import itertools
import math
import mmap
import operator
import os
import pickle
import queue
import reprlib
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TypeVar

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
R = TypeVar("R")
Backend = Literal["processes", "threads"]

_SLICE_SECONDS = 0.02  # a worker gives back what is left of its chunk after this time
_FLUSH_BYTES = (
    48 * 1024
)  # results are sent when so much is waiting; below a pipe's 64 KiB, so that sending doesn't block
_LARGE_BYTES = 128 * 1024  # a buffer of this size is read from the worker's memory and not sent
_TINY_SECONDS = 0.001  # a chunk that is expected to take less isn't split for balance's sake
_HUGE_PAGE_BYTES = 4 * 1024 * 1024  # ... and from this size its new memory asks for huge pages, as numpy's does
_LAZY_CHUNK_ITEMS = 256  # at most so many items of an iterator in one chunk
_WINDOW_ITEMS = 1024  # parallel_imap: how many items per worker may be done ahead of a slow one
_FORKS_AT_ONCE = 32  # which bounds the descriptors that are open while workers start
_READ_BYTES = 1 << 30  # at most so much in one system call; the kernel's own bound is just below 2 GiB
_INTERRUPTIBLE_SECONDS = 1.0 if sys.platform == "win32" else None  # Windows: Ctrl-C doesn't end a wait for a lock
_BAR_SECONDS, _LINE_SECONDS, _BAR_WIDTH = 0.1, 10.0, 30
_LAST_BREATH_SECONDS = 1.0  # a pipe's end is seen this much before its process's at most
_NO_LIMIT_BYTES = 1 << 60  # what cgroup v1 writes for "none" is above this


# ── What can go wrong ────────────────────────────────────────────────────────────────────────────────────────────


class WorkerDied(RuntimeError):  # noqa: N818  says what happened
    """A worker process ended while it had work: killed, crashed, or left by the function itself.

    Attributes:
        index: The item it was busy with, None where that is unknown.
        exitcode: As in `subprocess`: the exit status, or the negative number of the signal; None if unknown.
    """

    def __init__(self, message: str, index: int | None = None, exitcode: int | None = None) -> None:
        super().__init__(message, index, exitcode)
        self.message = message
        self.index = index
        self.exitcode = exitcode

    def __str__(self) -> str:
        return self.message


class WorkerOutOfMemory(WorkerDied, MemoryError):  # noqa: N818  says what happened
    """A worker was killed by the kernel for want of memory; the cgroup's counter says so."""


class RemoteError(RuntimeError):
    """Stands for an exception of the function that can't be brought over; its text holds the original's."""


# ── The public functions ─────────────────────────────────────────────────────────────────────────────────────────


def parallel_map(
    func: Callable[[T], R],
    iterable: Iterable[T],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002, ARG001  Metaflow's name; no file is needed
    *,
    chunk_size: int | None = None,
    progress: bool = False,
    backend: Backend | None = None,
) -> list[R]:
    """The list `[func(item) for item in iterable]`, computed on every core.

    Args:
        func: Any callable of one argument: lambdas, closures and bound methods too.
        iterable: Any iterable. One with a length is inherited by the workers and never pickled.
        max_parallel: Number of workers. By default the number of cores this process may use, see `available_cores`.
        dir: Not needed, for results never touch a file; taken so that calls written for Metaflow go on working.
        chunk_size: Items per hand-out. By default chosen as the work goes. With a fixed size the random numbers of
            the workers are the same in each run (with the parent's generators seeded), whatever the number of workers.
        progress: Show a bar on a terminal and in a notebook, lines in a log.
        backend: "processes" (the default), or "threads" for functions that release the GIL (the default on a
            free-threaded Python).

    Returns:
        The results, in the order of the items.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was started.
        WorkerDied: A worker was killed or crashed.
        RemoteError: `func` raised something that can't be pickled.
        BaseException: Whatever `func` raised first in time, with a note of the item and the remote traceback.
    """
    call = _checked(func, iterable, max_parallel, chunk_size, progress, backend)
    with contextlib.closing(_run(call)) as batches:
        if call.length is None:
            ordered = sorted(batches, key=operator.itemgetter(0))
            return [value for _, values in ordered for value in values]
        results: list[Any] = [None] * call.length
        for start, values in batches:
            results[start : start + len(values)] = values
    return results


def parallel_imap(
    func: Callable[[T], R],
    iterable: Iterable[T],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002, ARG001
    *,
    chunk_size: int | None = None,
    progress: bool = False,
    backend: Backend | None = None,
) -> Generator[R, None, None]:
    """The results in the order of the items, each as soon as it and those before it are there.

    As `parallel_map`, but lazy: work starts at the first `next`, an endless iterable is fine, and only a bounded
    number of items is in flight while the consumer is busy. Closing the generator ends the workers.
    """
    return _flatten(_checked(func, iterable, max_parallel, chunk_size, progress, backend), ordered=True)


def parallel_imap_unordered(
    func: Callable[[T], R],
    iterable: Iterable[T],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002, ARG001
    *,
    chunk_size: int | None = None,
    progress: bool = False,
    backend: Backend | None = None,
) -> Generator[R, None, None]:
    """The results as they come, in any order; otherwise as `parallel_imap`."""
    return _flatten(_checked(func, iterable, max_parallel, chunk_size, progress, backend), ordered=False)


@dataclass(frozen=True)
class _Call:
    """One call of the public functions, checked."""

    func: Callable[[Any], Any]
    items: Sequence[Any] | Iterator[Any]
    length: int | None
    workers: int
    chunk_size: int | None
    progress: bool
    backend: Backend


def _checked(
    func: Callable[[Any], Any],
    iterable: Iterable[Any],
    max_parallel: int | None,
    chunk_size: int | None,
    progress: bool,  # noqa: FBT001
    backend: Backend | None,
) -> _Call:
    if not callable(func):
        raise TypeError(f"the first argument must be a function of one item, not {reprlib.repr(func)}")
    try:
        iterator = iter(iterable)
    except TypeError:
        raise TypeError(f"the second argument must be iterable, not {reprlib.repr(iterable)}") from None
    _check_positive("max_parallel", max_parallel)
    _check_positive("chunk_size", chunk_size)
    if backend not in (None, "processes", "threads"):
        raise ValueError(f'backend must be "processes" or "threads", not {backend!r}')
    chosen: Backend = backend or ("processes" if getattr(sys, "_is_gil_enabled", lambda: True)() else "threads")
    items = _indexable(iterable, iterator)
    length = None if isinstance(items, Iterator) else len(items)
    workers = max_parallel or available_cores()
    if sharers := _sharers():
        workers = min(workers, available_cores() // sharers)
    if length is not None:
        workers = min(workers, math.ceil(length / (chunk_size or 1)))
    return _Call(func, items, length, max(1, workers), chunk_size, progress, chosen)


def _check_positive(name: str, value: int | None) -> None:
    if value is None:
        return
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")


def _indexable(iterable: Iterable[Any], iterator: Iterator[Any]) -> Sequence[Any] | Iterator[Any]:
    """The items as something that workers can index, if their number is known; else their iterator."""
    if type(iterable) in (list, tuple, range, str, bytes):
        return iterable  # type: ignore[return-value]
    if iterator is iterable or not hasattr(iterable, "__len__"):
        return iterator
    kind = type(iterable)
    if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
        return iterable  # type: ignore[return-value]
    if isinstance(iterable, Sequence) and not isinstance(iterable, (list, tuple, str, bytes, deque)):
        return iterable
    return list(iterator)


def _flatten(call: _Call, *, ordered: bool) -> Generator[Any, None, None]:
    with contextlib.closing(_run(call, ordered=ordered)) as batches:
        for _, values in batches:
            yield from values


# ── How many cores ───────────────────────────────────────────────────────────────────────────────────────────────

_crowd = 0  # in a worker process: how many workers share the cores, so that nested calls don't multiply processes
_thread_crowd = threading.local()  # .size: the same for a worker thread


def _sharers() -> int:
    """How many workers share this process's cores; 0 outside of any worker."""
    return getattr(_thread_crowd, "size", 0) or _crowd


def available_cores(environ: Mapping[str, str] = os.environ, proc: str = "/proc/self") -> int:
    """The number of cores this process may use.

    `K8SFLOW_CPUS` if it is set (in a pod: the CPU request); else the smaller of the cgroup's CPU quota, rounded up,
    and the process's affinity.

    Raises:
        ValueError: `K8SFLOW_CPUS` is not a whole number of at least 1.
    """
    text = environ.get("K8SFLOW_CPUS", "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"K8SFLOW_CPUS is {text!r}; it must be a whole number of at least 1, or unset")
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cpu_quotas(proc))]))


def _cpu_quotas(proc: str) -> Iterator[float]:
    """CPU quotas, in cores, of this process's cgroup and of those above it: v2's cpu.max, v1's cpu.cfs_*."""
    for folder in _cgroup_folders("cpu", proc):
        words = _words(f"{folder}/cpu.max")
        if not words:
            words = _words(f"{folder}/cpu.cfs_quota_us") + _words(f"{folder}/cpu.cfs_period_us")
        if len(words) == 2 and words[0] not in ("max", "-1"):  # noqa: PLR2004  quota and period
            yield int(words[0]) / int(words[1])


def _cgroup_folders(controller: str, proc: str = "/proc/self") -> list[str]:
    """The folders of this process's cgroup for a controller, innermost first, up to the mount; cgroup v1 and v2.

    Format of /proc/self/cgroup: cgroups(7); of mountinfo: proc(5). In a container the mount's root may be the
    container's own cgroup, which is then cut from the path.
    """
    return _folders_within(controller, tuple(_lines(f"{proc}/cgroup")), f"{proc}/mountinfo")


@functools.lru_cache(maxsize=16)
def _folders_within(controller: str, membership: tuple[str, ...], mountinfo: str) -> list[str]:
    paths = {}  # "" (v2) or a v1 controller → path within the hierarchy
    for line in membership:
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    folders = []
    for line in _lines(mountinfo):
        left, _, right = line.partition(" - ")
        root, mount = left.split()[3:5]
        kind, _, options = right.split(None, 2)
        name = {"cgroup2": "", "cgroup": controller}.get(kind)
        if name not in paths or (kind == "cgroup" and controller not in options.split(",")):
            continue
        inner = os.path.relpath(paths[name], root).split("/")
        parts = [part for part in inner if part not in ("", ".", "..")]
        folders += ["/".join([mount, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return folders


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux, not this cgroup version, or hidden from us: then it sets no limit we could know
        return []


def _words(path: str) -> list[str]:
    return " ".join(_lines(path)).split()


# ── What is still to be done ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(order=True)
class _Chunk:
    """Items `start` to `stop`. Those of an iterator are here, each with what is sent of it."""

    start: int
    stop: int
    items: list[tuple[Any, Any]] | None = field(default=None, compare=False)  # item, its pickle

    def __len__(self) -> int:
        return self.stop - self.start

    def before(self, index: int) -> _Chunk:
        stop = min(max(index, self.start), self.stop)
        return _Chunk(self.start, stop, self.items and self.items[: stop - self.start])

    def after(self, index: int) -> _Chunk:
        start = min(max(index, self.start), self.stop)
        return _Chunk(start, self.stop, self.items and self.items[start - self.start :])


class _Work:
    """Hands out chunks, lowest first, and takes back what a worker didn't get to.

    Args:
        call: The call.
        pack: Makes of an iterator's item, and its index, what is sent of it.
        largest: No chunk has more items than this, unless the call says so.
    """

    def __init__(self, call: _Call, pack: Callable[[Any, int], Any], largest: float = math.inf) -> None:
        self._call = call
        self._pack = pack
        self._iterator = call.items if isinstance(call.items, Iterator) else None
        self._drained = False
        self._largest = _LAZY_CHUNK_ITEMS if self._iterator is not None else largest
        self._returned: list[_Chunk] = []
        self._next = 0
        self._left = call.length or 0
        self._item_seconds = math.inf

    @property
    def lowest(self) -> int:
        """The index of the first item that isn't handed out."""
        return self._returned[0].start if self._returned else self._next

    def take(self, before: float) -> _Chunk | None:
        """The next chunk, unless it starts at `before` or later; None too if there is none at the moment."""
        if self.lowest >= before or (self._drained and not self._returned):
            return None
        if not self._returned:
            fresh = (
                self._pull(self._iterator) if self._iterator is not None else _Chunk(self._next, self._call.length or 0)
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

    def learn(self, done: int, seconds: float, rest: _Chunk) -> None:
        """Notes what a chunk's items took, and takes back the rest of it."""
        if done:
            self._item_seconds = seconds / done
        self._left += len(rest)
        self._put(rest)

    def _put(self, chunk: _Chunk) -> None:
        if chunk:
            heapq.heappush(self._returned, chunk)

    def _size(self) -> int:
        """Items for the next chunk: part of an even share, or all of it where that is a matter of microseconds."""
        if self._call.chunk_size:
            return self._call.chunk_size
        if self._iterator is not None:
            return _LAZY_CHUNK_ITEMS
        half = self._left / self._call.workers / 2
        tiny = _TINY_SECONDS / self._item_seconds if self._item_seconds else self._left
        return int(max(1, min(max(half, tiny), self._largest)))

    def _pull(self, iterator: Iterator[Any]) -> _Chunk:
        """An iterator's next items: so many as make a slice of work, and come within a slice of time."""
        guess = _SLICE_SECONDS / 2 / self._item_seconds if self._item_seconds else math.inf
        size = self._call.chunk_size or max(1, int(min(guess, self._largest)))
        items: list[tuple[Any, Any]] = []
        deadline = time.perf_counter() + _SLICE_SECONDS
        for item in itertools.islice(iterator, size):
            items.append((item, self._pack(item, self._next + len(items))))
            if time.perf_counter() > deadline and not self._call.chunk_size:
                break
        self._drained = not items  # an iterator isn't asked again after its end
        return _Chunk(self._next, self._next + len(items), items)


def _pickled_item(item: object, index: int, *, by_value: bool = False) -> bytes:
    try:
        return _dumps(item, by_value=by_value)
    except Exception as error:
        _note(error, f"parallel_map: item {index} can't be sent to a worker: {_repr(item)}")
        raise


def _dumps(value: object, *, by_value: bool = False) -> bytes:
    """A pickle of the value, with cloudpickle where pickle can't.

    Args:
        value: Any object.
        by_value: For another interpreter, which doesn't have our `__main__`: always with cloudpickle, if it is there.
    """
    cloudpickle = _optional("cloudpickle") if by_value else None
    if cloudpickle is None:
        try:
            return pickle.dumps(value, 5)
        except Exception:  # user-defined pickling may raise anything; it stands if there's no other way
            cloudpickle = _optional("cloudpickle")
            if cloudpickle is None:
                raise
    return bytes(cloudpickle.dumps(value, 5))


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# ── The run ──────────────────────────────────────────────────────────────────────────────────────────────────────

_Batch = tuple[int, list[Any]]  # index of the first result, results of consecutive items
_START_METHOD = "fork" if sys.platform == "linux" else "spawn"


@dataclass
class _Reply:
    """What a worker says: results of consecutive items."""

    start: int
    values: list[Any]
    seconds: float
    done: bool  # the chunk ends here: all of it is done, or the rest given back


class _Team(Protocol):
    """The workers of one call, known by their numbers."""

    def pack(self, item: Any, index: int) -> Any: ...
    def send(self, number: int, chunk: _Chunk) -> None:
        """Gives a chunk to a worker, which is started for its first."""

    def receive(self) -> tuple[int, _Reply]:
        """The next message of any worker; sleeps until there is one. Raises what the function raised, or WorkerDied."""

    def stop(self) -> None:
        """Ends the workers and frees all that belongs to them."""


def _run(call: _Call, *, ordered: bool = False) -> Generator[_Batch, None, None]:
    """The results in batches, as they come or in order; the workers live as long as this generator."""
    if call.length == 0:
        return
    if _sharers() and call.workers == 1:
        for index, item in enumerate(call.items):  # within a worker whose share is one core
            yield index, [call.func(item)]
        return
    team: _Team
    if call.backend == "threads":
        team = _ThreadTeam(call)
    else:
        team = _ForkTeam(call) if _START_METHOD == "fork" else _SpawnTeam(call)
    owner = os.getpid()
    _math_threads.hold_blas()
    try:
        work = _Work(call, team.pack, _LAZY_CHUNK_ITEMS if ordered else math.inf)
        batches = _drive(team, call.workers, work, _WINDOW_ITEMS * call.workers if ordered else math.inf)
        with _Progress(call) as progress:
            for batch in _in_order(batches) if ordered else batches:
                progress.add(len(batch[1]))
                yield batch
    finally:
        if os.getpid() == owner:  # a forked copy of the caller may close its copy of us; the workers aren't its own
            try:
                team.stop()
            finally:  # once more, if the exception of a signal's handler cut it short; else this does nothing
                team.stop()
                _math_threads.free_blas()


def _drive(team: _Team, workers: int, work: _Work, window: float) -> Generator[_Batch, None, None]:
    """Keeps every worker busy until all is done.

    Args:
        team: The workers.
        workers: Their number.
        work: What is to be done.
        window: How far work may run ahead of the first item whose result isn't there yet.
    """
    idle = list(range(workers))
    busy: dict[int, _Chunk] = {}
    batch: _Batch | None = None
    while True:
        limit = min([work.lowest, *(chunk.start for chunk in busy.values())]) + window
        while idle and (chunk := work.take(limit)):
            number = idle.pop()
            busy[number] = chunk
            team.send(number, chunk)
        if batch is not None:  # only now, so that the workers are busy while the consumer is
            yield batch
        if not busy:
            return
        number, reply = team.receive()
        rest = busy[number].after(reply.start + len(reply.values))
        if reply.done:
            del busy[number]
            idle.append(number)
            work.learn(len(reply.values), reply.seconds, rest)
        else:
            busy[number] = rest
        batch = reply.start, reply.values


def _in_order(batches: Iterable[_Batch]) -> Generator[_Batch, None, None]:
    head = 0
    waiting: dict[int, list[Any]] = {}
    for start, values in batches:
        waiting[start] = values
        while waiting_head := waiting.pop(head, None):
            yield head, waiting_head
            head += len(waiting_head)


# ── Messages between a worker process and its parent ─────────────────────────────────────────────────────────────

_COMMAND = struct.Struct("=qqq")  # start, stop, bytes of pickles that follow
_HEADER = struct.Struct("=Bqqdqqq")  # kind, start, results, seconds, bytes, pieces of the stream, buffers beside it
_PIECE = struct.Struct("=Qq")  # address in the worker's memory (0: the bytes follow), length
_PART, _DONE, _FAILED = range(3)  # kinds of messages: more of this chunk follows; chunk done or given back; failure
_TAKEN, _STREAM = b"t", b"s"  # answers to a message with addresses: memory was read; can't, write it to the channel


class _Channel(Protocol):
    """Bytes to and from the other side. Reading raises `WorkerDied` or `EOFError` where the other side is gone."""

    def read_into(self, view: memoryview) -> None: ...
    def write(self, data: Any) -> None: ...


class _WorkerEnd(_Channel, Protocol):
    """The parent's channel to a worker."""

    def read_memory(self, address: int, view: memoryview) -> None:
        """Copies from the worker's memory; PermissionError where that can't be done."""


def _read(channel: _Channel, size: int) -> bytearray:
    data = bytearray(size)
    channel.read_into(memoryview(data))
    return data


def _send_chunk(channel: _Channel, chunk: _Chunk) -> None:
    payload = b""
    if chunk.items is not None:
        pickles = [packed for _, packed in chunk.items]
        payload = b"".join([struct.pack(f"={len(pickles)}q", *map(len, pickles)), *pickles])
    channel.write(_COMMAND.pack(chunk.start, chunk.stop, len(payload)) + payload)


def _receive_reply(channel: _WorkerEnd) -> _Reply:
    """One message of a worker.

    Raises:
        WorkerDied: The worker ended.
        BaseException: What the function raised.
    """
    kind, start, count, seconds, size, pieces, buffers = _HEADER.unpack(_read(channel, _HEADER.size))
    body = _read(channel, size)
    if kind == _FAILED:
        raise _rebuilt(pickle.loads(body))
    try:
        values = _load_results(channel, body, count, pieces, buffers)
    except WorkerDied:
        raise
    except Exception as error:  # unpickling is the user's code
        _note(error, f"parallel_map: raised by unpickling the results of the items {start} to {start + count - 1}")
        raise
    return _Reply(start, values, seconds, kind == _DONE)


def _load_results(channel: _WorkerEnd, body: bytearray, count: int, pieces: int, buffers: int) -> list[Any]:
    if not pieces:
        return _load_runs(pickle.Unpickler, io.BytesIO(body), count)
    memory = _Memory(channel)
    split = (pieces + buffers) * _PIECE.size
    table = list(_PIECE.iter_unpack(body[:split]))
    stream: Any = _Stream(table[:pieces], memoryview(body)[split:], memory)
    large = (memory.fetch(address, length) for address, length in table[pieces:])
    values = _load_runs(functools.partial(pickle.Unpickler, buffers=large), stream, count)
    if not memory.streaming:
        channel.write(_TAKEN)
    return values


def _load_runs(unpickler: Callable[[Any], pickle.Unpickler], stream: Any, count: int) -> list[Any]:
    """The results, which the worker pickled in runs: lists of numbers, and lists of one where it is something else."""
    values: list[Any] = []
    while len(values) < count:
        values += unpickler(stream).load()
    return values


class _Memory:
    """The pieces of one message that are told by their address."""

    def __init__(self, channel: _WorkerEnd) -> None:
        self._channel = channel
        self.streaming = False  # its memory can't be read (another interpreter, seccomp): the worker sends the pieces

    def fetch(self, address: int, length: int) -> mmap.mmap:
        """A piece in writable memory of its own, which is freed with the object that uses it."""
        memory = _new_memory(length)
        with memoryview(memory) as view:
            self.read_into(address, view)
        return memory

    def read_into(self, address: int, view: memoryview) -> None:
        if not self.streaming:
            try:
                self._channel.read_memory(address, view)
            except PermissionError:
                self.streaming = True
                self._channel.write(_STREAM)
        if self.streaming:
            self._channel.read_into(view)


def _new_memory(length: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, length)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if length < _HUGE_PAGE_BYTES:
        flags |= getattr(mmap, "MAP_POPULATE", 0)  # all page faults in one go
    memory = mmap.mmap(-1, length, flags=flags)
    if length >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class _Stream:
    """What the Unpickler reads: pieces that came with the message, and pieces still in the worker's memory."""

    def __init__(self, table: list[tuple[int, int]], body: memoryview, memory: _Memory) -> None:
        self._pieces = deque(table)
        self._body = body
        self._memory = memory

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        wanted = len(view)
        while view and self._pieces:
            address, length = self._pieces.popleft()
            count = min(len(view), length)
            if address:
                self._memory.read_into(address, view[:count])
            else:
                view[:count] = self._body[:count]
                self._body = self._body[count:]
            if count < length:
                self._pieces.appendleft((address and address + count, length - count))
            view = view[count:]
        return wanted - len(view)

    def read(self, size: int) -> bytearray:
        data = bytearray(size)
        del data[self.readinto(data) :]
        return data

    def readline(self) -> NoReturn:
        raise pickle.UnpicklingError("pickle protocol 5 has no lines")


def _read_memory(pid: int, address: int, view: memoryview) -> None:
    """Copies from another process's memory, process_vm_readv(2)."""
    import ctypes  # noqa: PLC0415  costs milliseconds that only large results need to pay

    read = getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
    if read is None:
        raise PermissionError
    read.restype = ctypes.c_ssize_t
    read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    target = ctypes.addressof(ctypes.c_char.from_buffer(view))
    done = 0
    while done < len(view):
        count = min(len(view) - done, _READ_BYTES)
        here = (ctypes.c_size_t * 2)(target + done, count)  # struct iovec: base, length
        there = (ctypes.c_size_t * 2)(address + done, count)
        got = read(pid, here, 1, there, 1, 0)
        if got <= 0:
            number = ctypes.get_errno()
            if number in (errno.EPERM, errno.ENOSYS):
                raise PermissionError(number, os.strerror(number))
            raise ProcessLookupError(number, os.strerror(number))  # gone, or its memory is being torn down
        done += got


def _address(view: Any) -> int:
    """Where a buffer lies in memory; read-only ones too, for which ctypes has no call of its own."""
    import ctypes  # noqa: PLC0415

    buffer = (ctypes.c_void_p * 16)()  # Py_buffer: its first word is the address, all of it is 80 bytes
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    address = buffer[0] or 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return int(address)


# ── Within a worker process ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Job:
    """What a worker process works with, whichever way it was started."""

    func: Callable[[Any], Any]
    items: Any  # the inherited items; None where items are sent
    sliced: bool
    seeds: _Seeds
    tell: Callable[[int], None]  # hears the index of the item it begins with
    by_value: bool = False


def _serve(job: _Job, channel: _Channel) -> NoReturn:
    """Works off chunks until the parent ends it."""
    outbox = _Outbox(channel, by_value=job.by_value)
    while True:
        start, stop, size = _COMMAND.unpack(_read(channel, _COMMAND.size))
        items = _Sent(_read(channel, size), start, stop) if size else job.items
        _reseed(job.seeds, start)
        _work_off(job, items, start, stop, outbox)


def _work_off(job: _Job, items: Any, start: int, stop: int, outbox: _Outbox) -> None:
    began = time.perf_counter()
    deadline = began + _SLICE_SECONDS if job.sliced else math.inf
    outbox.start = start
    for index in range(start, stop):
        job.tell(index)
        try:
            outbox.add(job.func(items[index]))
        except BaseException as error:  # noqa: BLE001  SystemExit too: it is the function's, the caller shall get it
            outbox.fail(error, index, items)
            return
        now = time.perf_counter()
        if now > deadline:
            break
        if outbox.size > _FLUSH_BYTES and index + 1 < stop:
            outbox.flush(_PART, now - began)
    outbox.flush(_DONE, time.perf_counter() - began)


class _Sent:
    """Items of an iterator, as they came through the pipe; unpickled one by one."""

    def __init__(self, payload: bytearray, start: int, stop: int) -> None:
        self._start = start
        count = stop - start
        offsets = [8 * count, *struct.unpack(f"={count}q", payload[: 8 * count])]
        self._offsets = list(itertools.accumulate(offsets))
        self._payload = memoryview(payload)

    def __getitem__(self, index: int) -> Any:
        place = index - self._start
        return pickle.loads(self._payload[self._offsets[place] : self._offsets[place + 1]])


_NUMBERS = frozenset({bool, int, float, type(None)})
_NUMBER_BYTES = 9  # pickled; a large int takes more, which does no harm


class _Outbox:
    """Collects pickled results and sends them to the parent."""

    def __init__(self, channel: _Channel, *, by_value: bool) -> None:
        self._channel = channel
        self._by_value = by_value
        self._pieces: list[Any] = []
        self._buffers: list[memoryview] = []
        kind = getattr(_optional("cloudpickle"), "Pickler", pickle.Pickler) if by_value else pickle.Pickler
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
            self.write(_dumps([value], by_value=self._by_value))
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
        if len(view) < _LARGE_BYTES:
            return True
        self._buffers.append(view)
        self.size += len(view)
        return False

    def flush(self, kind: int, seconds: float) -> None:
        """Sends what is collected. With addresses in it, waits until the parent has read: the memory may change."""
        _flush_output()
        self._end_run()
        large = [piece for piece in self._pieces if len(piece) >= _LARGE_BYTES] + self._buffers
        table = b""
        if large:
            places = [(_address(piece) if len(piece) >= _LARGE_BYTES else 0, len(piece)) for piece in self._pieces]
            places += [(_address(view), len(view)) for view in self._buffers]
            table = b"".join(_PIECE.pack(*place) for place in places)
        body = b"".join([table, *(piece for piece in self._pieces if len(piece) < _LARGE_BYTES)])
        pieces = len(self._pieces) if large else 0
        head = _HEADER.pack(kind, self.start, self._count, seconds, len(body), pieces, len(self._buffers))
        self._channel.write(head + body)
        if large and _read(self._channel, 1) == _STREAM:
            for piece in large:
                self._channel.write(piece)
        self.start += self._count
        self._count = self.size = 0
        self._pieces.clear()
        self._buffers.clear()

    def fail(self, error: BaseException, index: int, items: Any) -> None:
        """Sends what was done before, then the exception."""
        self.flush(_PART, 0.0)
        body = pickle.dumps(_told(error, index, items, by_value=self._by_value), 5)
        self._channel.write(_HEADER.pack(_FAILED, index, 0, 0.0, len(body), 0, 0) + body)


# ── Forked workers ───────────────────────────────────────────────────────────────────────────────────────────────

_start_lock = threading.RLock()  # re-entrant: the collector may end a forgotten generator while workers start
_private_fds: set[int] = set()  # ends of pipes that a forked child of this process must not keep open


@dataclass(frozen=True)
class _PipeEnds:
    """The three pipes between the parent and a forked worker; what goes in at one end comes out at the other."""

    commands_out: int
    commands_in: int
    results_out: int
    results_in: int
    lifeline_out: int
    lifeline_in: int

    def close_workers(self) -> None:
        for fd in (self.commands_out, self.results_in, self.lifeline_out):
            os.close(fd)

    def close_parents(self) -> None:
        for fd in (self.commands_in, self.results_out, self.lifeline_in):
            _private_fds.discard(fd)
            os.close(fd)


def _open_pipes() -> _PipeEnds:
    fds: list[int] = []
    try:
        for _ in range(3):
            fds += os.pipe()
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    ends = _PipeEnds(*fds)
    _private_fds.update((ends.commands_in, ends.results_out, ends.lifeline_in))
    return ends


class _Forked:
    """One forked worker, as the parent sees it."""

    def __init__(self, team: _ForkTeam, number: int, pid: int, ends: _PipeEnds) -> None:
        self.number = number
        self.pid = pid
        self.chunk: _Chunk | None = None
        self.commands = ends.commands_in
        self.results = ends.results_out
        self.pidfd = -1
        with contextlib.suppress(OSError):  # an old kernel or a seccomp profile; then its end is seen by the pipe's
            self.pidfd = os.pidfd_open(pid)
        if self.pidfd >= 0:
            _private_fds.add(self.pidfd)
        self._fds = {self.commands, self.results, ends.lifeline_in, self.pidfd} - {-1}
        self._team = team
        self._exitcode: int | None = None
        self._reaped = False
        for fd in (self.commands, self.results):
            os.set_blocking(fd, False)

    def kill(self) -> None:
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int | None:
        """Kills the process if it still runs and waits for its end. Returns its exit code, None if somebody took it."""
        self.kill()
        if not self._reaped:
            with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, or a handler of the caller reaped it
                self._exitcode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._reaped = True
        return self._exitcode

    def close(self) -> None:
        _private_fds.difference_update(self._fds)
        while self._fds:
            os.close(self._fds.pop())

    def write(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.commands, view) :]
            except BlockingIOError:
                self._wait(self.commands, select.POLLOUT)
            except BrokenPipeError:
                raise self.death() from None

    def read_into(self, view: memoryview) -> None:
        while view:
            try:
                count = os.readv(self.results, [view])
            except BlockingIOError:
                self._wait(self.results, select.POLLIN)
                continue
            if count == 0:
                raise self.death()
            view = view[count:]

    def read_memory(self, address: int, view: memoryview) -> None:
        try:
            _read_memory(self.pid, address, view)
        except ProcessLookupError:
            raise self.death() from None

    def _wait(self, fd: int, event: int) -> None:
        """Sleeps until the pipe is ready. The worker's end is seen even if a child of its own keeps the pipe open."""
        poll = select.poll()
        poll.register(fd, event)
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        if all(ready != fd for ready, _ in poll.poll()):
            raise self.death()

    def death(self) -> WorkerDied:
        """The error that tells of this worker's end."""
        alive = self.pidfd >= 0 and not _readable_within(self.pidfd, _LAST_BREATH_SECONDS)
        with _interrupts_held():
            code = self.reap()
        index, item = None, "between two items"
        if self.chunk is not None:
            index = self._team.busy_with[self.number]
            item = f"at item {index}: {self._team.repr_of_item(self.chunk, index)}"
        how = "closed its pipe to the parent, or hid its memory from it," if alive else _how_it_ended(code)
        return _death_error(f"(pid {self.pid}) {how} {item}", index, None if alive else code, self._team.kills_before)


class _ForkTeam:
    """The forked workers of one call."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._workers: dict[int, _Forked] = {}
        self._poll = select.poll()
        self._by_fd: dict[int, _Forked] = {}
        self._readable: deque[_Forked] = deque()
        self._seeds = _draw_seeds()
        self._hold_openmp = _math_threads.openmp_holder()
        self.busy_with = memoryview(mmap.mmap(-1, 8 * call.workers)).cast("q")  # shared: worker → index of its item
        self.kills_before = _out_of_memory_kills()
        _warn_of_openmp()

    pack = staticmethod(_pickled_item)

    def _start(self, numbers: Iterable[int]) -> None:
        """Forks workers, one right after the other: what runs between two forks costs the parent page faults."""
        _flush_output()
        pids: dict[int, int] = {}
        pipes: dict[int, _PipeEnds] = {}
        threads = threading.active_count() > 1
        with _start_lock, _interrupts_held() as mask:
            try:
                for number in numbers:
                    pipes[number] = _open_pipes()
                for number in pipes:
                    pids[number] = _fork_process()
                    if pids[number] == 0:
                        self._be_worker(number, pipes, mask, threads=threads)
            finally:
                for number, ends in pipes.items():
                    if number in pids:
                        self._adopt(_Forked(self, number, pids[number], ends))
                    else:
                        ends.close_parents()
                    ends.close_workers()

    def _be_worker(self, number: int, pipes: dict[int, _PipeEnds], mask: Iterable[int], *, threads: bool) -> NoReturn:
        try:
            if threads:
                _renew_output()
            own = pipes.pop(number)
            for ends in pipes.values():
                ends.close_workers()
            tell = functools.partial(operator.setitem, self.busy_with, number)
            job = _Job(self._call.func, self._call.items, self._call.chunk_size is None, self._seeds, tell)
            _forked_process(job, self._call.workers, own, self._hold_openmp, mask)
        finally:
            os._exit(1)  # no error may reach the frames of the caller

    def _adopt(self, worker: _Forked) -> None:
        self._workers[worker.number] = worker
        for fd in {worker.results, worker.pidfd} - {-1}:
            self._by_fd[fd] = worker
            self._poll.register(fd, select.POLLIN)

    def send(self, number: int, chunk: _Chunk) -> None:
        if number not in self._workers:  # of an iterator it isn't known whether it has items for all
            last = number if self._call.length is None else max(0, number - _FORKS_AT_ONCE)
            self._start(range(number, last - 1, -1))
        worker = self._workers[number]
        worker.chunk = chunk
        self.busy_with[number] = chunk.start
        _send_chunk(worker, chunk)

    def receive(self) -> tuple[int, _Reply]:
        while not self._readable:
            events = self._poll.poll()
            for fd, event in events:
                worker = self._by_fd[fd]
                if fd == worker.results and event & select.POLLIN:
                    self._readable.append(worker)
            if not self._readable:
                raise self._by_fd[events[0][0]].death()
        worker = self._readable.popleft()
        reply = _receive_reply(worker)
        if reply.done:
            worker.chunk = None
        return worker.number, reply

    def stop(self) -> None:
        if not self._workers:
            return
        with _start_lock, _interrupts_held():
            for worker in self._workers.values():
                worker.kill()
            for worker in self._workers.values():
                worker.reap()
                worker.close()
            self._workers.clear()

    def repr_of_item(self, chunk: _Chunk, index: int) -> str:
        items: Any = self._call.items
        try:
            return _repr(items[index] if chunk.items is None else chunk.items[index - chunk.start][0])
        except Exception as error:  # noqa: BLE001  the item is the user's; its trouble must not hide the worker's death
            return f"<not to be shown: {error!r}>"


def _fork_process() -> int:
    """As `os.fork`, without Python 3.12's warning about threads; `_warn_of_openmp` says what there is to say."""
    if sys.version_info >= (3, 12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()
    return os.fork()


def _forget_private_fds() -> None:
    """In any forked child: closes the pipes of its parent's workers, so that their end is seen by who waits for it."""
    global _start_lock  # noqa: PLW0603  another thread of the parent may have held them
    _start_lock = threading.RLock()
    _math_threads.renew_lock()
    _renew_numpy_lock()
    for fd in _private_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    _private_fds.clear()


def _renew_numpy_lock() -> None:
    """Frees numpy's generator in a forked child, where a thread that is not here may have been drawing from it."""
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        with contextlib.suppress(AttributeError):  # while another thread still imports it, nobody holds it
            numpy_random.mtrand._rand._bit_generator.lock._at_fork_reinit()  # noqa: SLF001  as threading does it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_private_fds)


class _Pipes:
    """The worker's channel to the parent."""

    def __init__(self, ends: _PipeEnds) -> None:
        self._commands = ends.commands_out
        self._results = ends.results_in

    def read_into(self, view: memoryview) -> None:
        while view:
            count = os.readv(self._commands, [view[:_READ_BYTES]])
            if count == 0:
                raise EOFError
            view = view[count:]

    def write(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(self._results, view[:_READ_BYTES]) :]


def _forked_process(
    job: _Job,
    workers: int,
    ends: _PipeEnds,
    hold_openmp: Callable[[], object] | None,
    mask: Iterable[int],
) -> NoReturn:
    """The whole life of a forked worker. It never returns into the caller's frames."""
    try:
        gc.freeze()  # the collector leaves inherited objects alone: marking them would copy their pages
        global _crowd  # noqa: PLW0603
        _crowd = max(1, _sharers()) * workers
        _thread_crowd.size = 0
        _private_fds.update((ends.commands_out, ends.results_in, ends.lifeline_out))
        _die_with_parent(ends.lifeline_out)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, _leave_it_to_the_parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if hold_openmp:
            hold_openmp()
        os.environ.update(_ONE_THREAD_EACH)  # for libraries that the function loads, and programs that it starts
        _serve(job, _Pipes(ends))
    except (EOFError, BrokenPipeError):
        pass  # the parent doesn't listen any more
    except BaseException:  # noqa: BLE001  the border of this process; nothing may reach the frames of the caller
        traceback.print_exc()
    finally:
        _flush_output()
        os._exit(1)


def _leave_it_to_the_parent(_signal: int, _frame: object) -> None:
    """Ctrl-C reaches the whole group; what it means is for the parent to say.

    A handler, where SIG_IGN would be inherited by the programs that the function starts.
    """


def _die_with_parent(lifeline: int) -> None:
    """Has the kernel send SIGKILL when the pipe's other end, the parent's alone, is closed (fcntl(2), F_SETSIG).

    PR_SET_PDEATHSIG would fire when the thread that forked ends, not its process.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if _readable_within(lifeline, 0):
        os._exit(1)  # it died before we asked


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, a broken pipe, closed
            stream.flush()


_old_streams: list[object] = []  # kept: their end would flush them, and wait for their lock


def _renew_output() -> None:
    """Gives a worker streams of its own: another thread of the parent may hold the locks of the inherited ones."""
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        if isinstance(old, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):  # closed, or no file at all
                raw = io.FileIO(old.fileno(), "w", closefd=False)
                new = io.TextIOWrapper(
                    io.BufferedWriter(raw), old.encoding, old.errors, line_buffering=old.line_buffering
                )
                _old_streams.append(old)
                setattr(sys, name, new)


_HELD_SIGNALS = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
}


@contextlib.contextmanager
def _interrupts_held() -> Generator[set[Any], None, None]:
    """Signals wait while workers are started or reaped, so that none is lost from sight. Yields the old mask."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield set()
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _readable_within(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


# ── A worker's death, explained ──────────────────────────────────────────────────────────────────────────────────


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "ended (its status was collected by somebody else)"
    return f"exited with status {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"


def _death_error(what: str, index: int | None, code: int | None, kills_before: int) -> WorkerDied:
    kind = WorkerDied
    if code is None:
        advice = "The function must not close descriptors that it didn't open, nor reap children that it didn't start."
    elif code >= 0:
        advice = "The function, or something it called, left the process by os._exit."
    elif -code in (getattr(signal, name, 0) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")):
        advice = "A compiled extension crashed; faulthandler.enable() before the call shows where."
    elif -code != signal.SIGKILL:
        advice = "Somebody sent it this signal."
    elif _out_of_memory_kills() > kills_before:
        kind = WorkerOutOfMemory
        advice = (
            f"The kernel killed it for want of memory: ask for more, or set max_parallel lower. {_memory_figures()}"
        )
    else:
        advice = f"SIGKILL comes from the kernel when memory is short, or from a kill -9. {_memory_figures()}"
    return kind(f"a worker of parallel_map {what}\n{advice}", index, code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _out_of_memory_kills() -> int:
    """How often the kernel has killed a process of this cgroup for want of memory; v2 and v1 write `oom_kill N`."""
    for folder in _cgroup_folders("memory"):
        for line in _lines(f"{folder}/memory.events") + _lines(f"{folder}/memory.oom_control"):
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _memory_figures() -> str:
    files = {
        "limit": ("memory.max", "memory.limit_in_bytes"),
        "in use": ("memory.current", "memory.usage_in_bytes"),
        "highest": ("memory.peak", "memory.max_usage_in_bytes"),
    }
    figures = []
    for folder in _cgroup_folders("memory"):
        words = {name: _words(f"{folder}/{v2}") or _words(f"{folder}/{v1}") for name, (v2, v1) in files.items()}
        limit = words["limit"]
        if limit and limit[0] != "max" and int(limit[0]) < _NO_LIMIT_BYTES:
            figures += [f"{name} {int(value[0]) / 2**20:.0f} MiB" for name, value in words.items() if value]
            break
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            figures.append(f"available on the machine {int(line.split()[1]) / 1024:.0f} MiB")
    return f"Memory: {', '.join(figures)}."


# ── Worker threads ───────────────────────────────────────────────────────────────────────────────────────────────

_Event = tuple[int, "_Reply | BaseException"]


class _ThreadTeam:
    """Threads of this process that call the function themselves."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._crowd = max(1, _sharers()) * call.workers
        self._inboxes: dict[int, queue.SimpleQueue[_Chunk | None]] = {}
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    def pack(self, item: Any, index: int) -> Any:  # noqa: ARG002  as other teams
        return item

    def send(self, number: int, chunk: _Chunk) -> None:
        if number not in self._inboxes:
            self._start(number)
        self._inboxes[number].put(chunk)

    def _start(self, number: int) -> None:
        thread = threading.Thread(target=self._live, args=(number,), name=f"parallel_map-{number}", daemon=True)
        self._inboxes[number] = queue.SimpleQueue()
        self._threads.append(thread)
        thread.start()

    def receive(self) -> tuple[int, _Reply]:
        while True:
            with contextlib.suppress(queue.Empty):
                number, event = self._events.get(timeout=_INTERRUPTIBLE_SECONDS)
                break
        if isinstance(event, BaseException):
            raise event
        return number, event

    def stop(self) -> None:
        """Ends the threads. One that is in the midst of an item ends after it: a thread can't be killed."""
        self._stopping = True
        for inbox in self._inboxes.values():
            inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _live(self, number: int) -> None:
        _thread_crowd.size = self._crowd
        if hold_openmp := _math_threads.openmp_holder():
            hold_openmp()
        while (chunk := self._inboxes[number].get()) is not None:
            try:
                for reply in self._replies(number, chunk):
                    self._events.put((number, reply))
            except BaseException as error:  # noqa: BLE001  SystemExit too: raised by the caller's thread
                self._events.put((number, error))

    def _replies(self, number: int, chunk: _Chunk) -> Iterator[_Reply]:  # noqa: ARG002  as spawned ones
        began = time.perf_counter()
        deadline = began + _SLICE_SECONDS if self._call.chunk_size is None else math.inf
        values: list[Any] = []
        items: Any = self._call.items
        for index in range(chunk.start, chunk.stop):
            item = None
            try:
                item = items[index] if chunk.items is None else chunk.items[index - chunk.start][0]
                values.append(self._call.func(item))
            except BaseException as error:
                _note(error, f"parallel_map: raised at item {index}: {_repr(item)}")
                raise
            if self._stopping or time.perf_counter() > deadline:
                break
        yield _Reply(chunk.start, values, time.perf_counter() - began, done=True)


# ── Spawned workers: fresh interpreters, for macOS and Windows ───────────────────────────────────────────────────

_BOOT = (
    "import sys, pickle, importlib; path, name = pickle.load(sys.stdin.buffer); "
    "sys.path[:] = path; importlib.import_module(name)._spawned_process()"
)


class _Spawned:
    """One spawned worker, as the parent sees it."""

    def __init__(self, setup: bytes) -> None:
        self.chunk: _Chunk | None = None
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                windows = sys.platform == "win32"
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT],
                    stdin=subprocess.PIPE,
                    pass_fds=() if windows else (theirs.fileno(),),
                    env={**os.environ, **_ONE_THREAD_EACH},
                )
                stdin: Any = self._process.stdin
                handle = getattr(theirs, "share", lambda _: theirs.fileno())(
                    self._process.pid
                )  # share: on Windows alone
                with contextlib.suppress(BrokenPipeError):  # it died already; the first read says so
                    stdin.write(pickle.dumps((sys.path, __name__)) + pickle.dumps(handle))
                    stdin.flush()  # and is left open: its end tells the worker that the parent is gone
            undo.pop_all()
        self._socket = ours
        self._fds = {ours.fileno(), stdin.fileno()}
        _private_fds.update(self._fds)
        self._setup = setup

    def introduce(self) -> None:
        self.write(struct.pack("=q", len(self._setup)) + self._setup)

    def write(self, data: Any) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            raise self.death() from None

    def read_into(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view)
            except OSError:
                count = 0
            if count == 0:
                raise self.death()
            view = view[count:]

    def read_memory(self, address: int, view: memoryview) -> None:  # noqa: ARG002
        raise PermissionError

    def death(self) -> WorkerDied:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_BREATH_SECONDS)
        code = self._process.poll()
        self.kill()
        index, item = None, "at its start"
        if self.chunk is not None:
            first, last = self.chunk.start, self.chunk.stop - 1
            index = first if first == last else None
            item = f"at item {first}" if first == last else f"at one of the items {first} to {last}"
        how = "closed its socket to the parent" if code is None else _how_it_ended(code)
        return _death_error(f"(pid {self._process.pid}) {how} {item}", index, code, 0)

    def kill(self) -> None:
        self._process.kill()

    def reap(self) -> None:
        self.kill()
        self._process.wait()
        _private_fds.difference_update(self._fds)
        self._socket.close()
        stdin: Any = self._process.stdin
        with contextlib.suppress(OSError):  # what it didn't read is lost
            stdin.close()


class _SpawnTeam(_ThreadTeam):
    """Threads that each let an interpreter of their own call the function."""

    def __init__(self, call: _Call) -> None:
        super().__init__(call)
        self._spawned: dict[int, _Spawned] = {}
        self._setup = _dumps((call.func, call.chunk_size is None, _draw_seeds(), self._crowd), by_value=True)

    def pack(self, item: Any, index: int) -> Any:
        return _pickled_item(item, index, by_value=True)

    def _start(self, number: int) -> None:
        _flush_output()
        with _start_lock, _interrupts_held():
            self._spawned[number] = _Spawned(self._setup)
        super()._start(number)

    def _live(self, number: int) -> None:
        try:
            self._spawned[number].introduce()
        except WorkerDied as error:
            self._events.put((number, error))
        super()._live(number)

    def _replies(self, number: int, chunk: _Chunk) -> Iterator[_Reply]:
        worker = self._spawned[number]
        worker.chunk = chunk
        if chunk.items is None:
            items: Any = self._call.items
            packed = [(None, self.pack(items[index], index)) for index in range(chunk.start, chunk.stop)]
            chunk = _Chunk(chunk.start, chunk.stop, packed)
        _send_chunk(worker, chunk)
        reply = _receive_reply(worker)
        while not reply.done:
            yield reply
            reply = _receive_reply(worker)
        worker.chunk = None
        yield reply

    def stop(self) -> None:
        with _start_lock, _interrupts_held():
            for worker in self._spawned.values():
                worker.kill()  # which ends its thread's waiting too
            super().stop()
            for worker in self._spawned.values():
                worker.reap()


class _Socket:
    """The spawned worker's channel to the parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read_into(self, view: memoryview) -> None:
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]

    def write(self, data: Any) -> None:
        self._socket.sendall(data)


def _spawned_process() -> NoReturn:
    """The whole life of a spawned worker; `_BOOT` calls it."""
    global _crowd
    handle = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if sys.platform == "win32":
        connection = socket.fromshare(handle)
    else:
        connection = socket.socket(fileno=handle)
    signal.signal(signal.SIGINT, _leave_it_to_the_parent)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # it was inherited from the parent's `_interrupts_held`
    channel = _Socket(connection)
    try:
        (size,) = struct.unpack("=q", _read(channel, 8))
        func, sliced, seeds, _crowd = pickle.loads(_read(channel, size))
        _serve(_Job(func, None, sliced, seeds, tell=lambda _: None, by_value=True), channel)
    except (EOFError, OSError):
        pass  # the parent doesn't listen any more
    finally:
        _flush_output()
        os._exit(1)


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent does
    os._exit(1)


# ── An exception's way home ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Told:
    """An exception as a worker tells it."""

    pickled: bytes | None  # None where it can't be pickled, or not loaded again
    class_id: int
    class_name: str
    args: bytes | None
    state: dict[str, bytes]
    summary: str
    note: str


def _told(error: BaseException, index: int, items: Any, *, by_value: bool) -> _Told:
    kind = type(error)
    own_frames = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(kind, error, own_frames))
    try:
        item = _repr(items[index])
    except Exception as trouble:  # noqa: BLE001  the item is the user's
        item = f"<not to be shown: {trouble!r}>"
    state = {name: data for name, value in vars(error).items() if (data := _dumped_or_none(value, by_value=by_value))}
    return _Told(
        pickled=_dumped_or_none(error, by_value=by_value),
        class_id=0 if by_value else id(kind),
        class_name=f"{kind.__module__}.{kind.__qualname__}",
        args=_dumped_or_none(error.args, by_value=by_value),
        state=state,
        summary=traceback.format_exception_only(kind, error)[-1].strip(),
        note=f"parallel_map: raised at item {index}: {item}\nin worker {os.getpid()}:\n{text}",
    )


def _dumped_or_none(value: object, *, by_value: bool) -> bytes | None:
    """A pickle that has been loaded once to see that it can be."""
    try:
        data = _dumps(value, by_value=True) if by_value else pickle.dumps(value, 5)
        return data if type(pickle.loads(data)) is type(value) else None
    except Exception:  # noqa: BLE001  whatever user-defined pickling raises: then the value stays here
        return None


def _rebuilt(told: _Told) -> BaseException:
    error: BaseException | None = None
    if told.pickled:
        with contextlib.suppress(Exception):  # the user's code; it may need what only the worker had imported
            error = pickle.loads(told.pickled)
    if error is not None:
        pass
    elif kind := _class_at(told.class_id, told.class_name):
        args = pickle.loads(told.args) if told.args else (told.summary,)
        error = kind.__new__(kind, *args)
        error.args = args
        vars(error).update({name: pickle.loads(data) for name, data in told.state.items()})
    else:
        error = RemoteError(told.summary)
    _note(error, told.note)
    return error


def _class_at(class_id: int, name: str) -> type[BaseException] | None:
    """The exception class that a worker names; a forked one inherited ours, so it is even where it was."""
    kinds = [BaseException]
    while kinds:
        kind = kinds.pop()
        if class_id in (0, id(kind)) and f"{kind.__module__}.{kind.__qualname__}" == name:
            return kind
        kinds += kind.__subclasses__()
    return None


def _note(error: BaseException, text: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(text)
    else:
        error.__cause__ = RemoteError(text)


def _repr(value: object) -> str:
    return reprlib.repr(value)


# ── Random numbers, math libraries, progress ─────────────────────────────────────────────────────────────────────

_Seeds = dict[str, int]
_ONE_THREAD_EACH = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def _loaded(name: str) -> Any:
    return sys.modules.get(name)


def _draw_seeds() -> _Seeds:
    """A number from each of the parent's generators, so that a seeded parent has reproducible workers.

    A module may be there but unfinished: another thread is just importing it, and nobody has used it yet.
    """
    seeds = {}
    python, numpy, torch = map(_loaded, ("random", "numpy.random", "torch"))
    if hasattr(python, "getrandbits"):
        seeds["random"] = python.getrandbits(128)
    if hasattr(numpy, "bytes"):
        seeds["numpy.random"] = int.from_bytes(numpy.bytes(16), "little")
    if hasattr(torch, "randint") and hasattr(torch, "manual_seed"):
        seeds["torch"] = int(torch.randint(2**62, (1,)).item())
    return seeds


def _reseed(seeds: _Seeds, start: int) -> None:
    """Gives the chunk that starts there random numbers of its own."""
    for name, seed in seeds.items():
        module = importlib.import_module(name)
        if name == "random":
            module.seed(seed + start)
        elif name == "numpy.random":
            words = [seed >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
            module.seed([*words, start & 0xFFFFFFFF])
        else:
            module.manual_seed(seed + start)


class _MathThreads:
    """Holds the loaded BLAS and OpenMP libraries to one thread while calls run.

    BLAS is held in this process, from before the first fork to the end of the last call: OpenBLAS answers a change
    made in a forked child by starting all its threads first. OpenMP's number is the calling thread's own.
    """

    def __init__(self) -> None:
        self.renew_lock()
        self._calls = 0
        self._limits: Any = None

    def renew_lock(self) -> None:
        self._lock = threading.RLock()

    def hold_blas(self) -> None:
        with self._lock:
            self._calls += 1
            controller = _thread_controller(len(sys.modules)) if self._calls == 1 else None
            if controller is not None:
                self._limits = controller.select(user_api="blas").limit(limits=1)

    def free_blas(self) -> None:
        with self._lock:
            self._calls -= 1
            limits, self._limits = (None, self._limits) if self._calls else (self._limits, None)
            if limits is not None:
                limits.restore_original_limits()

    @staticmethod
    def openmp_holder() -> Callable[[], object] | None:
        """What a worker calls to hold OpenMP to one thread; None if no OpenMP library is loaded."""
        controller = _thread_controller(len(sys.modules))
        openmp = controller and controller.select(user_api="openmp")
        return functools.partial(openmp.limit, limits=1) if openmp and openmp.lib_controllers else None


_math_threads = _MathThreads()


@functools.lru_cache(maxsize=1)
def _thread_controller(_modules: int) -> Any:
    """What threadpoolctl knows of the loaded libraries; looked at again when there are more modules."""
    if "numpy" not in sys.modules and "torch" not in sys.modules:
        return None
    threadpoolctl = _optional("threadpoolctl")
    return threadpoolctl and threadpoolctl.ThreadpoolController()


def _warn_of_openmp() -> None:
    """Says that workers may hang where that can't be prevented.

    GNU's OpenMP doesn't survive a fork once it has run: the next parallel region waits for threads that the child
    doesn't have. Held to one thread (threadpoolctl) it has no parallel regions.
    """
    if _optional("threadpoolctl") is not None or not Path("/proc/self/task").is_dir():
        return
    if len(list(Path("/proc/self/task").iterdir())) <= threading.active_count():
        return
    if any("libgomp" in line for line in _lines("/proc/self/maps")):
        warnings.warn(
            "This process has run OpenMP code (libgomp), whose threads don't survive a fork: workers of parallel_map "
            "may hang when they run OpenMP code too. Install threadpoolctl, with which workers are held to one thread "
            "each and are safe; or use OpenMP in the workers only; or use backend='threads'.",
            RuntimeWarning,
            stacklevel=6,
        )


class _Progress:
    """Tells on stderr how far the work is: a bar on a terminal and in a notebook, plain lines elsewhere."""

    def __init__(self, call: _Call) -> None:
        self._on = call.progress
        self._total = call.length
        self._done = 0
        self._began = self._told = time.monotonic()
        self._bar = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())

    def __enter__(self) -> _Progress:  # noqa: PYI034  typing.Self is Python 3.11's
        return self

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._on and now - self._told >= (_BAR_SECONDS if self._bar else _LINE_SECONDS):
            self._told = now
            self._tell(end="" if self._bar else "\n")

    def __exit__(self, *_error: object) -> None:
        if self._on:
            self._tell(end="\n")

    def _tell(self, end: str) -> None:
        seconds = time.monotonic() - self._began
        rate = self._done / seconds if seconds else 0.0
        text = f"parallel_map: {self._done:,} items"
        if self._total is not None:
            text = f"parallel_map: {self._done:,} of {self._total:,} items ({self._done / self._total:.0%})"
        text += f", {seconds:.1f} s, {rate:,.1f}/s"
        if self._total is not None and rate and self._done < self._total:
            text += f", {(self._total - self._done) / rate:.0f} s left"
        if self._bar and self._total is not None:
            filled = self._done * _BAR_WIDTH // self._total
            text = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {text}"
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed: no reason to fail
            sys.stderr.write(f"\r{text}\x1b[K{end}" if self._bar else f"{text}{end}")
            sys.stderr.flush()
