"""The public functions."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from .call import Backend, Call, checked
from .failures import Stopped
from .loop import run

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
        dir: Ignored, since results never touch a file; accepted so that calls written for Metaflow keep working.
        chunk_size: Items per chunk. By default adapted to how long items take. With a fixed size and the parent's
            generators seeded, the random numbers of the workers are the same in each run, for any number of workers.
        progress: Show a bar on a terminal and in a notebook, lines in a log.
        backend: "processes" (the default), or "threads" for functions that release the GIL (the default on a
            free-threaded Python).

    Returns:
        The results, in the order of the items.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was started.
        WorkerDied: A worker was killed or crashed.
        RemoteError: `func` raised something that can't be pickled.
        BaseException: The first exception that `func` raised, with a note of the item and the remote traceback.
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
    """The results in the order of the items, each as soon as it and those before it are available.

    Like `parallel_map`, but lazy: work starts at the first `next`, an endless iterable is fine, and only a bounded
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
    """The results as they arrive, in any order; otherwise like `parallel_imap`."""
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
