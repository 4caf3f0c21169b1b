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
import reprlib
import select
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeVar

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
_HUGE_PAGE_BYTES = 4 * 1024 * 1024  # ... and from this size its new memory asks for huge pages, as numpy's does
_LAZY_CHUNK_ITEMS = 256  # at most so many items of an iterator in one chunk
_WINDOW_ITEMS = 1024  # parallel_imap: how many items per worker may be done ahead of a slow one
_READ_BYTES = 1 << 30  # at most so much in one system call; the kernel's own bound is just below 2 GiB
_LAST_BREATH_SECONDS = 1.0  # a pipe's end is seen this much before its process's at most
_NO_LIMIT_BYTES = 1 << 60  # what cgroup v1 writes for "none" is above this


# ── What can go wrong ────────────────────────────────────────────────────────────────────────────────────────────


class WorkerDied(RuntimeError):
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


class WorkerOutOfMemory(WorkerDied, MemoryError):
    """A worker was killed by the kernel for want of memory; the cgroup's counter says so."""


class RemoteError(RuntimeError):
    """Stands for an exception of the function that can't be brought over; its text holds the original's."""


# ── The public functions ─────────────────────────────────────────────────────────────────────────────────────────


def parallel_map(
    func: Callable[[T], R],
    iterable: Iterable[T],
    max_parallel: int | None = None,
    dir: str | None = None,  # noqa: A002  Metaflow's name
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
            the workers are the same in each run (if the parent's generators are seeded), whatever the number of workers.
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
    cores = max_parallel or available_cores()
    items = _indexable(iterable, iterator)
    length = None if isinstance(items, Iterator) else len(items)
    needed = cores if length is None else math.ceil(length / (chunk_size or 1))
    workers = max(1, min(cores, needed, _nested_cores or cores))
    return _Call(func, items, length, workers, chunk_size, progress, chosen)


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

_nested_cores = 0  # in a worker: the cores its own calls may use, so that nesting doesn't multiply processes


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
    paths = {}  # "" (v2) or a v1 controller → path within the hierarchy
    for line in _lines(f"{proc}/cgroup"):
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    folders = []
    for line in _lines(f"{proc}/mountinfo"):
        left, _, right = line.partition(" - ")
        root, mount = left.split()[3:5]
        kind, _, options = right.split(None, 2)
        name = {"cgroup2": "", "cgroup": controller}.get(kind)
        if name not in paths or (kind == "cgroup" and controller not in options.split(",")):
            continue
        inner = "/" + os.path.relpath(paths[name], root)
        parts = [part for part in inner.split("/") if part not in ("", ".", "..")]
        folders += ["/".join([mount, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return folders


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:  # not Linux, not this cgroup version, or hidden from us: then it sets no limit we could know
        return []


def _words(path: str) -> list[str]:
    return " ".join(_lines(path)).split()


# ── What is still to be done ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(order=True)
class _Chunk:
    """Items `start` to `stop`: inherited ones by their index alone, those of an iterator as pickles."""

    start: int
    stop: int
    pickles: list[bytes] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return self.stop - self.start

    def before(self, index: int) -> _Chunk:
        stop = min(max(index, self.start), self.stop)
        return _Chunk(self.start, stop, self.pickles and self.pickles[: stop - self.start])

    def after(self, index: int) -> _Chunk:
        start = min(max(index, self.start), self.stop)
        return _Chunk(start, self.stop, self.pickles and self.pickles[start - self.start :])


class _Work:
    """Hands out chunks, lowest first, and takes back what a worker didn't get to."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._returned: list[_Chunk] = []
        self._next = 0
        self._left = call.length or 0
        self._lazy_size = 1
        self._iterator = call.items if isinstance(call.items, Iterator) else None

    @property
    def lowest(self) -> int:
        """The index of the first item that isn't handed out."""
        return self._returned[0].start if self._returned else self._next

    def take(self, before: float = math.inf) -> _Chunk | None:
        """The next chunk, unless it starts at `before` or later; None too if there is none at the moment."""
        if self.lowest >= before:
            return None
        if self._returned:
            chunk = heapq.heappop(self._returned)
        elif self._iterator is not None:
            return self._pull(self._iterator)
        else:
            chunk = _Chunk(self._next, self._call.length or 0)
            self._next = chunk.stop
        size = self._call.chunk_size or max(1, self._left // (2 * self._call.workers))
        head = chunk.before(chunk.start + size)
        self._put(chunk.after(head.stop))
        self._left -= len(head)
        return head if head else None

    def give_back(self, chunk: _Chunk) -> None:
        if chunk:
            self._left += len(chunk)
            self._lazy_size = 1
            self._put(chunk)

    def _put(self, chunk: _Chunk) -> None:
        if chunk:
            heapq.heappush(self._returned, chunk)

    def _pull(self, iterator: Iterator[Any]) -> _Chunk | None:
        """An iterator's next items: as many as come within a slice of time, and twice the last number at most."""
        size = self._call.chunk_size or self._lazy_size
        self._lazy_size = min(2 * self._lazy_size, _LAZY_CHUNK_ITEMS)
        pickles: list[bytes] = []
        deadline = time.perf_counter() + _SLICE_SECONDS
        for item in itertools.islice(iterator, size):
            pickles.append(_dumps_item(item, self._next + len(pickles)))
            if time.perf_counter() > deadline and not self._call.chunk_size:
                break
        start, self._next = self._next, self._next + len(pickles)
        return _Chunk(start, self._next, pickles) if pickles else None


def _dumps_item(item: object, index: int) -> bytes:
    try:
        return _dumps(item)
    except Exception as error:
        _note(error, f"parallel_map: item {index} of the iterator can't be sent to a worker: {_repr(item)}")
        raise


def _dumps(value: object) -> bytes:
    """A pickle of the value, with cloudpickle where pickle can't and cloudpickle is there."""
    try:
        return pickle.dumps(value, 5)
    except Exception:  # what user-defined pickling raises is theirs; the original error stands if there's no other way
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


def _run(call: _Call, *, ordered: bool = False) -> Generator[_Batch, None, None]:
    """The results in batches, as they come or in order; the workers live as long as this generator."""
    if call.length == 0:
        return
    if _nested_cores == 1:
        for index, item in enumerate(call.items):  # inside a worker whose share is one core
            yield index, [call.func(item)]
        return
    team = _ForkTeam(call)
    owner = os.getpid()
    try:
        team.start()
        batches = _drive(team, _Work(call), _WINDOW_ITEMS * call.workers if ordered else None)
        yield from _in_order(batches) if ordered else batches
    finally:
        if os.getpid() == owner:  # a forked copy of the caller may close its copy of us; the workers aren't its own
            team.stop()


def _drive(team: _ForkTeam, work: _Work, window: int | None) -> Generator[_Batch, None, None]:
    """Keeps every worker busy until all is done.

    Args:
        team: The workers, started.
        work: What is to be done.
        window: How far work may run ahead of the first item whose result isn't there yet; None for no limit.
    """
    idle = list(team.workers)
    busy: dict[_Worker, _Chunk] = {}
    batch: _Batch | None = None
    while True:
        limit = math.inf
        if window is not None:
            limit = min([work.lowest, *(chunk.start for chunk in busy.values())]) + window
        while idle and (chunk := work.take(limit)):
            worker = idle.pop()
            busy[worker] = chunk
            team.send(worker, chunk)
        if batch is not None:  # only now, so that the workers are busy while the consumer is
            yield batch
        if not busy:
            return
        worker, reply = team.receive(busy)
        rest = busy[worker].after(reply.start + len(reply.values))
        if reply.done:
            del busy[worker]
            idle.append(worker)
            work.give_back(rest)
        else:
            busy[worker] = rest
        batch = reply.start, reply.values


def _in_order(batches: Iterable[_Batch]) -> Generator[_Batch, None, None]:
    head = 0
    waiting: dict[int, list[Any]] = {}
    for start, values in batches:
        waiting[start] = values
        while head in waiting:
            values_ = waiting.pop(head)
            yield head, values_
            head += len(values_)


# ── Forked workers, seen from the parent ─────────────────────────────────────────────────────────────────────────

_COMMAND = struct.Struct("=qqq")  # start, stop, bytes of pickles that follow
_HEADER = struct.Struct("=Bqqqqq")  # kind, start, number of results, bytes, pieces of the stream, buffers beside it
_PIECE = struct.Struct("=Qq")  # address in the worker's memory (0: the bytes follow), length
_PART, _DONE, _FAILED = range(3)  # kinds of messages: more of this chunk follows; chunk done or given back; failure
_TAKEN, _STREAM = b"t", b"s"  # answers to a message with addresses: memory was read; can't, write it to the pipe

_start_lock = threading.Lock()
_private_fds: set[int] = set()  # ends of pipes that a forked child of this process must not keep open


@dataclass(eq=False)
class _Worker:
    """The parent's ends of one worker."""

    number: int
    pid: int
    pidfd: int  # -1 where the kernel or a seccomp profile doesn't give one
    commands: int
    results: int
    lifeline: int
    exitcode: int | None = None
    gone: bool = False

    def fds(self) -> list[int]:
        return [fd for fd in (self.pidfd, self.commands, self.results, self.lifeline) if fd >= 0]

    def reap(self) -> None:
        """Kills the process if it still runs, waits for its end and closes what belongs to it."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, or a handler of the caller reaped it
                self.exitcode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.gone = True


@dataclass
class _Reply:
    start: int
    values: list[Any]
    done: bool


class _ForkTeam:
    """The forked workers of one call."""

    def __init__(self, call: _Call) -> None:
        self.workers: list[_Worker] = []
        self._call = call
        self._poll = select.poll()
        self._by_fd: dict[int, _Worker] = {}
        self._readable: deque[_Worker] = deque()
        self._busy_with = memoryview(mmap.mmap(-1, 8 * call.workers)).cast("q")  # worker → index of its item
        self._kills_before = _out_of_memory_kills()

    def start(self) -> None:
        _flush_output()
        seeds = _draw_seeds()
        with _start_lock, _interrupts_held() as mask:
            for number in range(self._call.workers):
                worker = self._fork(number, seeds, mask)
                self.workers.append(worker)
                for fd in (worker.results, worker.pidfd):
                    if fd >= 0:
                        self._by_fd[fd] = worker
                        self._poll.register(fd, select.POLLIN)

    def _fork(self, number: int, seeds: _Seeds, mask: Iterable[int]) -> _Worker:
        with contextlib.ExitStack() as undo:
            pipes = []
            for _ in range(3):
                ends = os.pipe()
                pipes.append(ends)
                for fd in ends:
                    undo.callback(os.close, fd)
            (commands, commands_end), (results_end, results), (lifeline, lifeline_end) = pipes
            ours = {commands_end, results_end, lifeline_end}
            undo.callback(_private_fds.difference_update, ours)
            _private_fds.update(ours)
            pid = _fork_process()
            if pid == 0:
                _worker_process(self._call, number, commands, results, lifeline, self._busy_with, seeds, mask)
            undo.pop_all()
        for fd in (commands, results, lifeline):
            os.close(fd)
        for fd in (commands_end, results_end):
            os.set_blocking(fd, False)
        worker = _Worker(number, pid, -1, commands_end, results_end, lifeline_end)
        with contextlib.suppress(OSError):
            worker.pidfd = os.pidfd_open(pid)
        return worker

    def stop(self) -> None:
        """Ends and reaps the workers and closes all that belongs to them."""
        with _start_lock, _interrupts_held():
            for worker in self.workers:
                if not worker.gone:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
            for worker in self.workers:
                worker.reap()
                _private_fds.difference_update(worker.fds())
                for fd in worker.fds():
                    os.close(fd)
            self.workers.clear()

    def send(self, worker: _Worker, chunk: _Chunk) -> None:
        payload = b""
        if chunk.pickles is not None:
            lengths = struct.pack(f"={len(chunk.pickles)}q", *map(len, chunk.pickles))
            payload = b"".join([lengths, *chunk.pickles])
        self._busy_with[worker.number] = chunk.start
        self._write(worker, _COMMAND.pack(chunk.start, chunk.stop, len(payload)), chunk)
        if payload:
            self._write(worker, payload, chunk)

    def receive(self, busy: Mapping[_Worker, _Chunk]) -> tuple[_Worker, _Reply]:
        """The next message of any worker; sleeps until there is one.

        Raises:
            WorkerDied: A worker ended.
            BaseException: What the function raised.
        """
        while not self._readable:
            events = self._poll.poll()
            self._readable.extend(
                self._by_fd[fd] for fd, event in events if event & select.POLLIN and fd == self._by_fd[fd].results
            )
            if not self._readable:
                worker = self._by_fd[events[0][0]]
                raise self._death(worker, busy.get(worker))
        worker = self._readable.popleft()
        chunk = busy.get(worker)
        kind, start, count, size, pieces, buffers = _HEADER.unpack(self._read(worker, _HEADER.size, chunk))
        if kind == _FAILED:
            raise _rebuilt(pickle.loads(self._read(worker, size, chunk)))
        body = self._read(worker, size, chunk)
        if not pieces and not buffers:
            source = io.BytesIO(body)
            return worker, _Reply(start, [pickle.Unpickler(source).load() for _ in range(count)], kind == _DONE)
        memory = _WorkerMemory(self, worker, chunk)
        table = list(_PIECE.iter_unpack(body[: (pieces + buffers) * _PIECE.size]))
        stream = _Stream(table[:pieces], memoryview(body)[(pieces + buffers) * _PIECE.size :], memory)
        values = []
        large = (memory.fetch(address, length) for address, length in table[pieces:])
        for _ in range(count):
            values.append(pickle.Unpickler(stream, buffers=large).load())
        if not memory.streaming:
            self._write(worker, _TAKEN, chunk)
        return worker, _Reply(start, values, kind == _DONE)

    def _write(self, worker: _Worker, data: bytes, chunk: _Chunk | None) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(worker.commands, view) :]
            except BlockingIOError:
                self._wait(worker, worker.commands, select.POLLOUT, chunk)
            except BrokenPipeError:
                raise self._death(worker, chunk) from None

    def _read(self, worker: _Worker, size: int, chunk: _Chunk | None) -> bytes:
        data = bytearray(size)
        self._read_into(worker, memoryview(data), chunk)
        return bytes(data)

    def _read_into(self, worker: _Worker, view: memoryview, chunk: _Chunk | None) -> None:
        while view:
            try:
                count = os.readv(worker.results, [view])
            except BlockingIOError:
                self._wait(worker, worker.results, select.POLLIN, chunk)
                continue
            if count == 0:
                raise self._death(worker, chunk)
            view = view[count:]

    def _wait(self, worker: _Worker, fd: int, event: int, chunk: _Chunk | None) -> None:
        """Sleeps until the pipe is ready. The worker's end is an error even if a child of its own keeps the pipe open."""
        poll = select.poll()
        poll.register(fd, event)
        if worker.pidfd >= 0:
            poll.register(worker.pidfd, select.POLLIN)
        if all(ready != fd for ready, _ in poll.poll()):
            raise self._death(worker, chunk)

    def _death(self, worker: _Worker, chunk: _Chunk | None) -> WorkerDied:
        """The error that tells of a worker's end."""
        closed_only = worker.pidfd >= 0 and not _readable_within(worker.pidfd, _LAST_BREATH_SECONDS)
        with _interrupts_held():
            worker.reap()
        index, item = None, "between two items"
        if chunk is not None:
            index = self._busy_with[worker.number]
            item = f"at item {index}: {self._repr_of_item(chunk, index)}"
        return _death_error(worker, index, item, self._kills_before, closed_only=closed_only)

    def _repr_of_item(self, chunk: _Chunk, index: int) -> str:
        try:
            if chunk.pickles is None:
                return _repr(operator.getitem(self._call.items, index))
            return _repr(pickle.loads(chunk.pickles[index - chunk.start]))
        except Exception as error:  # the item is the user's; what goes wrong with it must not hide the worker's death
            return f"<not to be shown: {error!r}>"


def _fork_process() -> int:
    """As `os.fork`, without Python 3.12's warning about threads; `_warn_of_openmp` says what there is to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _forget_private_fds() -> None:
    """In any forked child: closes the pipes of its parent's workers, so that their end is seen by who waits for it."""
    global _start_lock  # noqa: PLW0603  another thread of the parent may have held it
    _start_lock = threading.Lock()
    for fd in _private_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    _private_fds.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_private_fds)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, a broken pipe, closed
            stream.flush()


@contextlib.contextmanager
def _interrupts_held() -> Generator[set[Any], None, None]:
    """Ctrl-C and SIGTERM wait while workers are started or reaped, so that none is lost from sight. Yields the mask."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _readable_within(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _death_error(worker: _Worker, index: int | None, item: str, kills_before: int, *, closed_only: bool) -> WorkerDied:
    code = worker.exitcode
    kind = WorkerDied
    advice = ""
    if closed_only:
        how, advice = "closed its pipe to the parent", "The function must not close descriptors that it didn't open."
    elif code is None:
        how = "ended (its exit status was collected by somebody else)"
    elif code >= 0:
        how = f"exited with status {code}"
        advice = "The function, or something it called, left by os._exit."
    else:
        how = f"was killed by {_signal_name(-code)}"
        if -code == signal.SIGKILL:
            if _out_of_memory_kills() > kills_before:
                kind = WorkerOutOfMemory
                advice = "The kernel killed it for want of memory: ask for more, or use fewer workers (max_parallel)."
            else:
                advice = "SIGKILL comes from the kernel when memory is short, or from somebody's kill -9."
            advice += f" {_memory_figures()}"
        elif -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE):
            advice = "A compiled extension crashed; faulthandler.enable() before the call shows where."
    return kind(f"a worker of parallel_map (pid {worker.pid}) {how} {item}\n{advice}".rstrip(), index, code)


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


# ── Large results: read from the worker's memory ─────────────────────────────────────────────────────────────────


class _WorkerMemory:
    """Fetches the pieces of one message that are told by their address."""

    def __init__(self, team: _ForkTeam, worker: _Worker, chunk: _Chunk | None) -> None:
        self._team = team
        self._worker = worker
        self._chunk = chunk
        self.streaming = False  # the kernel or a seccomp profile forbids reading; the worker writes to the pipe instead

    def fetch(self, address: int, length: int) -> Any:
        """A writable buffer of its own memory with the piece in it."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if length < _HUGE_PAGE_BYTES:
            flags |= getattr(mmap, "MAP_POPULATE", 0)
        memory = mmap.mmap(-1, length, flags=flags)
        if length >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages
                memory.madvise(mmap.MADV_HUGEPAGE)
        with memoryview(memory) as view:
            self.read_into(address, view)
        return memory

    def read_into(self, address: int, view: memoryview) -> None:
        if not self.streaming:
            try:
                _read_memory(self._worker.pid, address, view)
            except PermissionError:
                self.streaming = True
                self._team._write(self._worker, _STREAM, self._chunk)
            except ProcessLookupError:
                raise self._team._death(self._worker, self._chunk) from None
        if self.streaming:
            self._team._read_into(self._worker, view, self._chunk)


class _Stream:
    """What the Unpickler reads: pieces that came with the message, and pieces still in the worker's memory."""

    def __init__(self, table: list[tuple[int, int]], body: memoryview, memory: _WorkerMemory) -> None:
        self._pieces = deque(table)
        self._body = body
        self._memory = memory

    def readinto(self, view: memoryview) -> int:
        view = memoryview(view).cast("B")
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
        del data[self.readinto(memoryview(data)) :]
        return data

    def readline(self) -> NoReturn:
        raise pickle.UnpicklingError("pickle protocol 5 has no lines")


def _read_memory(pid: int, address: int, view: memoryview) -> None:
    """Copies from another process's memory, process_vm_readv(2)."""
    import ctypes  # noqa: PLC0415  18 ms that only large results pay

    class IoVec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    read = getattr(ctypes.CDLL(None, use_errno=True), "process_vm_readv", None)
    if read is None:
        raise PermissionError
    read.restype = ctypes.c_ssize_t
    target = ctypes.addressof(ctypes.c_char.from_buffer(view))
    done = 0
    while done < len(view):
        count = min(len(view) - done, _READ_BYTES)
        local, remote = IoVec(target + done, count), IoVec(address + done, count)
        got = read(
            pid, ctypes.byref(local), ctypes.c_ulong(1), ctypes.byref(remote), ctypes.c_ulong(1), ctypes.c_ulong(0)
        )
        if got <= 0:
            number = ctypes.get_errno()
            if number in (errno.EPERM, errno.ENOSYS):
                raise PermissionError(number, os.strerror(number))
            raise ProcessLookupError(number, os.strerror(number))  # gone, or its memory is being torn down
        done += got


def _address(view: memoryview) -> int:
    """Where a buffer lies in memory; read-only ones too, for which ctypes has no call of its own."""
    import ctypes  # noqa: PLC0415

    class PyBuffer(ctypes.Structure):  # Py_buffer of the stable ABI
        _fields_ = (
            ("buf", ctypes.c_void_p),
            ("obj", ctypes.py_object),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("format", ctypes.c_char_p),
            ("shape", ctypes.c_void_p),
            ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p),
            ("internal", ctypes.c_void_p),
        )

    buffer = PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    address = buffer.buf or 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address


# ── Forked workers, seen from within ─────────────────────────────────────────────────────────────────────────────


def _worker_process(
    call: _Call,
    number: int,
    commands: int,
    results: int,
    lifeline: int,
    busy_with: memoryview,
    seeds: _Seeds,
    mask: Iterable[int],
) -> NoReturn:
    """The whole life of a forked worker. It never returns into the caller's frames."""
    code = 1
    try:
        gc.freeze()  # the collector leaves inherited objects alone: marking them would copy their pages
        global _nested_cores  # noqa: PLW0603
        _nested_cores = max(1, (_nested_cores or available_cores()) // call.workers)
        _private_fds.update((commands, results, lifeline))
        _die_with_parent(lifeline)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, _leave_it_to_the_parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _hold_math_libraries_to_one_thread()
        outbox = _Outbox(commands, results)
        while head := _read_pipe(commands, _COMMAND.size):
            start, stop, size = _COMMAND.unpack(head)
            items = call.items if not size else _Sent(_read_pipe(commands, size), start, stop)
            _reseed(seeds, start)
            _work_off(call.func, items, start, stop, outbox, busy_with, number, sliced=call.chunk_size is None)
        code = 0
    except BrokenPipeError:
        code = 0  # the parent doesn't listen any more
    except BaseException:  # the border of this process; nothing may reach the frames of the caller
        traceback.print_exc()
    finally:
        _flush_output()
        os._exit(code)


def _leave_it_to_the_parent(_signal: int, _frame: object) -> None:
    """Ctrl-C reaches the whole group; the parent decides. A Python handler, for programs the function starts get the default."""


def _die_with_parent(lifeline: int) -> None:
    """Has the kernel send SIGKILL when the pipe's other end, which the parent alone holds, is closed (fcntl(2), F_SETSIG).

    PR_SET_PDEATHSIG would fire when the thread that forked ends, not the process.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if _readable_within(lifeline, 0):
        os._exit(1)  # it died before we asked


def _work_off(
    func: Callable[[Any], Any],
    items: Any,
    start: int,
    stop: int,
    outbox: _Outbox,
    busy_with: memoryview,
    number: int,
    *,
    sliced: bool,
) -> None:
    deadline = time.perf_counter() + _SLICE_SECONDS if sliced else math.inf
    outbox.start = index = start
    try:
        for index in range(start, stop):  # noqa: B007
            busy_with[number] = index
            outbox.add(func(items[index]))
            if outbox.size > _FLUSH_BYTES:
                outbox.flush(_PART)
            if time.perf_counter() > deadline:
                break
    except BaseException as error:  # SystemExit too: it is the function's, and the caller shall get it
        outbox.fail(error, index, items)
    else:
        outbox.flush(_DONE)


class _Sent:
    """Items of an iterator, as they came through the pipe; unpickled one by one."""

    def __init__(self, payload: bytes, start: int, stop: int) -> None:
        self._start = start
        count = stop - start
        offsets = [8 * count, *struct.unpack(f"={count}q", payload[: 8 * count])]
        self._offsets = list(itertools.accumulate(offsets))
        self._payload = memoryview(payload)

    def __getitem__(self, index: int) -> Any:
        place = index - self._start
        return pickle.loads(self._payload[self._offsets[place] : self._offsets[place + 1]])


class _Outbox:
    """Collects pickled results and sends them to the parent."""

    def __init__(self, commands: int, results: int) -> None:
        self._commands = commands
        self._results = results
        self._pieces: list[Any] = []
        self._buffers: list[memoryview] = []
        self._pickler = pickle.Pickler(self, 5, buffer_callback=self._keep)
        self._count = 0
        self.start = 0
        self.size = 0

    def add(self, value: object) -> None:
        before = len(self._pieces), len(self._buffers), self.size
        try:
            self._pickler.dump(value)
        except Exception:  # pickling is the user's code too
            del self._pieces[before[0] :]
            del self._buffers[before[1] :]
            self.size = before[2]
            self.write(_dumps(value))
        self._pickler.clear_memo()
        self._count += 1

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

    def flush(self, kind: int) -> None:
        """Sends what is collected. With addresses in it, waits until the parent has read them: memory may change then."""
        _flush_output()
        large = [piece for piece in self._pieces if len(piece) >= _LARGE_BYTES] + self._buffers
        table = []
        if large:
            for piece in self._pieces:
                table.append((_address(memoryview(piece)) if len(piece) >= _LARGE_BYTES else 0, len(piece)))
            table += [(_address(view), len(view)) for view in self._buffers]
        small = [piece for piece in self._pieces if len(piece) < _LARGE_BYTES]
        body = b"".join([*(_PIECE.pack(*entry) for entry in table), *small])
        pieces = len(self._pieces) if large else 0
        head = _HEADER.pack(kind, self.start, self._count, len(body), pieces, len(self._buffers))
        _write_pipe(self._results, head + body)
        if large and _read_pipe(self._commands, 1) == _STREAM:
            for piece in large:
                _write_pipe(self._results, piece)
        self.start += self._count
        self._count = self.size = 0
        self._pieces.clear()
        self._buffers.clear()

    def fail(self, error: BaseException, index: int, items: Any) -> None:
        _flush_output()
        body = pickle.dumps(_told(error, index, items), 5)
        _write_pipe(self._results, _HEADER.pack(_FAILED, index, 0, len(body), 0, 0) + body)


def _read_pipe(fd: int, size: int) -> bytes:
    """So many bytes; fewer only at the pipe's end."""
    parts = []
    while size and (part := os.read(fd, min(size, _READ_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write_pipe(fd: int, data: Any) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


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


def _told(error: BaseException, index: int, items: Any) -> _Told:
    kind = type(error)
    own_frames = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(kind, error, own_frames))
    try:
        item = _repr(items[index])
    except Exception as trouble:  # the item is the user's
        item = f"<not to be shown: {trouble!r}>"
    state = {name: data for name, value in vars(error).items() if (data := _dumped_or_none(value))}
    return _Told(
        pickled=_dumped_or_none(error),
        class_id=id(kind),
        class_name=f"{kind.__module__}.{kind.__qualname__}",
        args=_dumped_or_none(error.args),
        state=state,
        summary=traceback.format_exception_only(kind, error)[-1].strip(),
        note=f"parallel_map: raised at item {index}: {item}\nin worker {os.getpid()}:\n{text}",
    )


def _dumped_or_none(value: object) -> bytes | None:
    """A pickle that has been loaded once to see that it can be."""
    try:
        data = pickle.dumps(value, 5)
        return data if type(pickle.loads(data)) is type(value) else None
    except Exception:  # whatever user-defined pickling raises: then the value stays here
        return None


def _rebuilt(told: _Told) -> BaseException:
    if told.pickled:
        error: BaseException = pickle.loads(told.pickled)
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
    """The exception class that a forked worker inherited from us, so it is where it was."""
    kinds = [BaseException]
    while kinds:
        kind = kinds.pop()
        if id(kind) == class_id and f"{kind.__module__}.{kind.__qualname__}" == name:
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


# ── Random numbers and math libraries ────────────────────────────────────────────────────────────────────────────

_Seeds = dict[str, int]


def _draw_seeds() -> _Seeds:
    """A number from each generator of the parent that is in use, so that a seeded parent has reproducible workers."""
    seeds = {}
    if "random" in sys.modules:
        seeds["random"] = sys.modules["random"].getrandbits(128)
    if "numpy.random" in sys.modules:
        seeds["numpy.random"] = int.from_bytes(sys.modules["numpy.random"].bytes(16), "little")
    if "torch" in sys.modules:
        seeds["torch"] = int(sys.modules["torch"].randint(2**62, (1,)).item())
    return seeds


def _reseed(seeds: _Seeds, start: int) -> None:
    """Gives each chunk numbers of its own."""
    for name, seed in seeds.items():
        module = sys.modules[name]
        if name == "random":
            module.seed(seed + start)
        elif name == "numpy.random":
            words = [seed >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
            module.seed([*words, start & 0xFFFFFFFF])
        else:
            module.manual_seed(seed + start)


def _hold_math_libraries_to_one_thread() -> None:
    if "threadpoolctl" in sys.modules or "numpy" in sys.modules:
        threadpoolctl = _optional("threadpoolctl")
        if threadpoolctl is not None:
            threadpoolctl.threadpool_limits(limits=1)
