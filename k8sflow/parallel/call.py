"""One call of the public functions, its arguments checked before anything starts."""

from __future__ import annotations

import math
import operator
import reprlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .limits import available_cores, core_sharers

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MOST_WORKERS = 8192  # more than any machine has cores
_DESCRIPTORS_EACH = 4  # open in the parent for each worker: two pipes, its lifeline, its pidfd
_OTHER_DESCRIPTORS = 160  # 64 of the caller, and the other ends for 32 workers that are being started
Backend = Literal["processes", "threads", "fork", "spawn"]


@dataclass(frozen=True)
class Call:
    """One call of the public functions, checked."""

    func: Callable[[Any], Any]
    items: Sequence[Any] | Iterator[Any]
    length: int | None
    workers: int
    chunk_size: int | None
    progress: bool
    backend: Backend


def checked(
    func: Callable[[Any], Any],
    iterable: Iterable[Any],
    max_parallel: int | None,
    chunk_size: int | None,
    progress: bool,  # noqa: FBT001
    backend: Backend | None,
) -> Call:
    if not callable(func):
        raise TypeError(f"the first argument must be a function of one item, not {reprlib.repr(func)}")
    try:
        iterator = iter(iterable)
    except TypeError:
        raise TypeError(f"the second argument must be iterable, not {reprlib.repr(iterable)}") from None
    max_parallel = _positive("max_parallel", max_parallel)
    chunk_size = _positive("chunk_size", chunk_size)
    if backend not in (None, *get_args(Backend)):
        raise ValueError(f'backend must be "processes", "threads", "fork" or "spawn", not {backend!r}')
    if backend == "fork" and sys.platform != "linux":
        raise ValueError('backend="fork" needs Linux: use "processes", which starts new interpreters here')
    chosen: Backend = backend or ("processes" if getattr(sys, "_is_gil_enabled", lambda: True)() else "threads")
    items = _indexable(iterable, iterator)
    try:
        length = None if isinstance(items, Iterator) else len(items)
    except OverflowError:  # a range longer than any list
        items, length = iterator, None
    workers = min(max_parallel or available_cores(), _most_workers(chosen))
    if sharing := core_sharers():
        workers = min(workers, available_cores() // sharing)
    if length is not None:
        workers = min(workers, math.ceil(length / (chunk_size or 1)))
    return Call(func, items, length, max(1, workers), chunk_size, progress, chosen)


def _positive(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    try:
        number = operator.index(value)
        if isinstance(value, bool):  # an int in Python, but surely a mistake
            raise TypeError  # noqa: TRY301
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")
    return min(number, sys.maxsize)


def _most_workers(backend: Backend) -> int:
    """The largest possible number of workers: `max_parallel` is an upper bound only, and may be a billion for "all"."""
    if backend == "threads" or resource is None:
        return _MOST_WORKERS
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return _MOST_WORKERS
    return max(1, min(_MOST_WORKERS, (descriptors - _OTHER_DESCRIPTORS) // _DESCRIPTORS_EACH))


def _indexable(iterable: Iterable[Any], iterator: Iterator[Any]) -> Sequence[Any] | Iterator[Any]:
    """The items in a form that workers can index, if their number is known; else their iterator."""
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
