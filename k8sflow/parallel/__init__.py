"""Map a function over items on every core: `parallel_map`, `parallel_imap`, `parallel_imap_unordered`.

    from k8sflow import parallel_map

    totals = parallel_map(lambda i: matrix[i : i + 1000].sum(), range(0, len(matrix), 1000))

The folder stands alone: it needs the standard library, and cloudpickle, threadpoolctl and numpy where they are there.

How it works, and in which room; in this order it reads best:

- `call`: the arguments, checked before anything starts. `limits`: how many cores there are for it.
- `loop`, `work`: the parent hands out ranges of indices. A range is half of an even share of what is left, but a worker
  keeps it for 20 ms only and gives the rest back: cheap items cost no messages, dear ones never pile up.
- `forked`: on Linux one worker per core is forked after the data exists. The function and a sized iterable are
  inherited, so nothing is pickled and nothing copied. The parent then sleeps in one `poll` over pipes and pidfds. The
  end, good or bad, is the same: every worker gets SIGKILL and is reaped.
- `forked_worker`, `worker`: the workers' side. If the parent dies, the kernel kills them.
- `channels`, `messages`, `memory`: results are pickled into a pipe. Large buffers are not: the worker sends their
  addresses, the parent reads them from the worker's memory (`process_vm_readv`) into memory of its own, and the worker
  goes on when that is done. `pickling` is pickle, with cloudpickle where pickle can't.
- `failures`: an exception comes home with its type and a note; a dead worker is explained.
- `forking`, `signals`, `math_threads`: what a fork must mind: locks, descriptors, output, signals, BLAS and OpenMP.
- `spawned`, `spawned_worker`: on macOS and Windows workers are fresh interpreters, and what they need is pickled.
  `threads`: for functions that release the GIL. `progress`: the bar.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from .call import Backend, Call, checked
from .failures import RemoteError, Stopped, WorkerDied, WorkerOutOfMemory
from .limits import available_cores
from .loop import run

__all__ = [
    "Backend",
    "RemoteError",
    "WorkerDied",
    "WorkerOutOfMemory",
    "available_cores",
    "parallel_imap",
    "parallel_imap_unordered",
    "parallel_map",
]

T = TypeVar("T")
R = TypeVar("R")


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
    call = checked(func, iterable, max_parallel, chunk_size, progress, backend)
    try:
        with contextlib.closing(run(call)) as batches:
            if call.length is None:
                ordered = sorted(batches, key=operator.itemgetter(0))
                return [value for _, values in ordered for value in values]
            results: list[Any] = [None] * call.length
            for start, values in batches:
                results[start : start + len(values)] = values
            return results
    except Stopped as stopped:
        error = stopped.error
    raise error


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
    return _flatten(checked(func, iterable, max_parallel, chunk_size, progress, backend), ordered=True)


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
    return _flatten(checked(func, iterable, max_parallel, chunk_size, progress, backend), ordered=False)


def _flatten(call: Call, *, ordered: bool) -> Generator[Any, None, None]:
    try:
        with contextlib.closing(run(call, ordered=ordered)) as batches:
            for _, values in batches:
                yield from values
    except Stopped as stopped:
        error = stopped.error
    else:
        return
    raise error
