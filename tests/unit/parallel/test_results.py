"""parallel_map and its variants return the results of `map`."""

from __future__ import annotations

import collections
import functools
import itertools
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8sflow.parallel import Backend, parallel_imap, parallel_imap_unordered, parallel_map

MAPS = [parallel_map, parallel_imap, parallel_imap_unordered]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    items=st.lists(values, max_size=40),
    max_parallel=st.integers(1, 4),
    chunk_size=st.none() | st.integers(1, 50),
    lazily=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_map(items: list[Any], max_parallel: int, chunk_size: int | None, lazily: bool) -> None:
    """For any items, number of workers and chunk size: the list that `map` would return."""

    def func(item: Any) -> tuple[str, Any]:
        return repr(item), item

    iterable = iter(items) if lazily else items
    expected = list(map(func, items))
    assert parallel_map(func, iterable, max_parallel, chunk_size=chunk_size) == expected
    iterable = iter(items) if lazily else items
    assert list(parallel_imap(func, iterable, max_parallel, chunk_size=chunk_size)) == expected


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_every_way_equals_map(way: Backend, count: int, lazily: bool) -> None:
    """With forked workers, spawned ones, and threads."""
    offset = 7

    def items() -> Any:
        return iter(range(count)) if lazily else range(count)

    expected = [i + offset for i in range(count)]
    assert parallel_map(lambda i: i + offset, items(), 2, backend=way) == expected
    assert list(parallel_imap(lambda i: i + offset, items(), 2, backend=way)) == expected
    assert sorted(parallel_imap_unordered(lambda i: i + offset, items(), 2, backend=way)) == expected


class Box:
    def __init__(self, content: int) -> None:
        self.content = content

    def add(self, other: int) -> int:
        return self.content + other

    def __call__(self, other: int) -> int:
        return self.content * other


@pytest.mark.parametrize(
    "func",
    [
        lambda i: i * 3,
        functools.partial(math.pow, 2),
        Box(5).add,
        Box(5),
        str,
        "{}".format,
        functools.lru_cache(abs),
        type("Local", (), {"__init__": lambda self, i: None, "__eq__": lambda self, other: True, "__hash__": None}),
    ],
)
def test_any_callable(func: Callable[[int], Any]) -> None:
    """Lambdas, partials, bound methods, callable objects, builtins, dynamic classes."""
    assert parallel_map(func, range(10), 2) == list(map(func, range(10)))


class Squares(Sequence[int]):
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < 30:
            raise IndexError(index)
        return index**2


@pytest.mark.parametrize(
    "iterable",
    [
        [3, 1, 2],
        (3, 1, 2),
        range(5, 50, 7),
        "Ünïcode",
        b"bytes",
        bytearray(b"bytes"),
        {"a": 1, "b": 2},
        {"a": 1}.items(),
        {4, 5},
        frozenset({4, 5}),
        collections.deque([1, 2, 3]),
        collections.Counter("hello"),
        np.arange(12).reshape(4, 3),
        np.array([1.5, 2.5]),
        Squares(),
        collections.UserList([1, 2]),
        memoryview(b"abc"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_sized_iterable(iterable: Any) -> None:
    """Any iterable with a length is processed in the order of its iteration."""
    assert [np.asarray(r).tolist() for r in parallel_map(lambda x: x, iterable, 2)] == [
        np.asarray(r).tolist() for r in iterable
    ]


def test_sized_items_are_inherited_not_pickled() -> None:
    """Items that can't be pickled are fine."""
    locks = [threading.Lock() for _ in range(4)]
    locks[2].acquire()
    assert parallel_map(lambda lock: lock.locked(), locks, 2) == [False, False, True, False]


def test_items_of_a_generator_are_taken_when_they_are_yielded() -> None:
    """Each worker gets the yielded value, even if the generator re-uses one buffer."""

    def generate() -> Iterator[list[int]]:
        buffer = [0]
        for i in range(500):
            buffer[0] = i
            yield buffer

    assert parallel_map(lambda item: item[0], generate(), 2) == list(range(500))


def test_lambdas_in_a_generator_travel_by_cloudpickle(start_method: str) -> None:
    """cloudpickle handles items that pickle can't."""
    assert parallel_map(lambda f: f(2), (lambda x, i=i: x * i for i in range(5)), 2) == [0, 2, 4, 6, 8]


def test_results_that_only_cloudpickle_can_hold(start_method: str) -> None:
    results = parallel_map(lambda i: lambda x: x + i, range(3), 2)
    assert [result(10) for result in results] == [10, 11, 12]


def test_a_result_that_is_changed_later_arrives_as_it_was_returned(start_method: str) -> None:
    """The function may return the same array each time; each result arrives with its contents at that time."""
    for size in (10, 1_000_000):
        array = np.zeros(size)

        def fill(i: int, array: np.ndarray = array) -> np.ndarray:
            array[:] = i
            return array

        for i, result in enumerate(parallel_imap(fill, range(6), 1)):
            assert (result == i).all()


@pytest.mark.parametrize("chunk_size", [np.int64(2), 10**30])
def test_any_whole_number_is_a_chunk_size(chunk_size: int) -> None:
    for items in (range(5), iter(range(5))):
        assert parallel_map(lambda i: i, items, 2, chunk_size=chunk_size) == list(range(5))


@pytest.mark.parametrize("kind", MAPS)
def test_wrong_arguments_are_errors_before_anything_starts(kind: Callable[..., Any]) -> None:
    """Generators raise them at the call too, not at the first next()."""
    started: list[int] = []
    for arguments, error in [
        ((None, [1]), TypeError),
        ((3, [1]), TypeError),
        ((started.append, 5), TypeError),
        ((started.append, None), TypeError),
        ((started.append, np.float64(3)), TypeError),
        ((started.append, [1], 0), ValueError),
        ((started.append, [1], -1), ValueError),
        ((started.append, [1], 1.5), TypeError),
        ((started.append, [1], "2"), TypeError),
        ((started.append, [1], True), TypeError),
        ((started.append, [1], np.float64(2)), TypeError),
        ((started.append, [1], np.int8(-3)), ValueError),
    ]:
        with pytest.raises(error):
            kind(*arguments)
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        kind(started.append, [1], chunk_size=0)
    with pytest.raises(ValueError, match="backend must be"):
        kind(started.append, [1], backend="fibers")
    assert started == []


@pytest.mark.parametrize("max_parallel", [10**9, 10**30, np.int64(10**9)])
def test_a_huge_max_parallel_is_as_many_workers_as_items(way: Backend, max_parallel: int) -> None:
    """It is an upper bound: nothing is allocated for workers that never start, and iterators work as usual."""
    address_space, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, hard))
    try:
        for items in (range(3), iter(range(3))):
            assert parallel_map(abs, items, max_parallel, chunk_size=1, backend=way) == [0, 1, 2]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (address_space, hard))


class Counter:
    """An endless iterator that counts how far it was drawn."""

    def __init__(self) -> None:
        self.drawn = -1

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> int:
        self.drawn += 1
        return self.drawn


def test_imaps_take_an_endless_iterable_lazily(way: Backend) -> None:
    """Items are drawn as the consumer proceeds, a bounded number ahead of it."""
    for kind, ahead in ((parallel_imap, 2 * 1024 + 2), (parallel_imap_unordered, 2 * 3)):
        items = Counter()
        results = kind(lambda i: i, items, 2, backend=way, chunk_size=1)
        assert items.drawn == -1
        first = [next(results) for _ in range(20)]
        assert len(set(first)) == 20
        assert items.drawn < 20 + ahead
        results.close()


@pytest.mark.slow
def test_imap_runs_ahead_of_a_slow_item_only_so_far(tmp_path: Any) -> None:
    """The others wait for a slow item at the head rather than pile up results."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    drawn = 0

    def draw() -> Iterator[int]:
        nonlocal drawn
        for i in itertools.count():
            drawn = i
            if i == 3000:  # beyond the window of 2 x 1024: not reached before the head is done
                gate.write_bytes(b"")
            yield i

    def slow_head(i: int) -> int:
        return len(gate.read_bytes()) if i == 0 else i

    opener = threading.Timer(1.0, gate.write_bytes, [b"go"])
    opener.start()
    results = parallel_imap(slow_head, draw(), 2)
    assert next(results) == 2
    opener.join()
    assert drawn < 3000
    results.close()


def test_imap_yields_before_the_input_ends() -> None:
    """Results arrive while items are still being produced."""
    ended = False

    def generate() -> Iterator[int]:
        nonlocal ended
        yield from range(5000)
        ended = True

    results = parallel_imap_unordered(lambda i: i, generate(), 2)
    next(results)
    assert not ended
    assert len(list(results)) == 4999


@pytest.mark.slow
def test_results_need_not_wait_until_a_slow_iterable_has_fed_every_worker(way: Backend) -> None:
    drawn: list[int] = []

    def slowly() -> Iterator[int]:
        for i in range(16):
            time.sleep(0.1)
            drawn.append(i)
            yield i

    results = parallel_imap_unordered(lambda i: i, slowly(), 16, backend=way)
    first = next(results)
    assert len(drawn) < 16
    assert sorted([first, *results]) == list(range(16))


def test_imap_of_a_range_that_is_longer_than_any_list() -> None:
    results = parallel_imap(lambda i: i, range(10**30), 2)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    results.close()


def test_an_error_of_the_iterable_reaches_the_caller(way: Backend) -> None:
    def generate() -> Iterator[int]:
        yield 1
        raise LookupError("no more rows")

    with pytest.raises(LookupError, match="no more rows"):
        parallel_map(lambda i: i, generate(), 2, backend=way)


def test_prints_of_workers_arrive(capfd: pytest.CaptureFixture[str], start_method: str) -> None:
    """The output of workers is complete when the call returns, and appears once."""
    sys.stdout.write("before ")
    parallel_map(lambda i: print(f"item {i}\n", end=""), range(4), 2)  # in one piece, where output is unbuffered too
    out = capfd.readouterr().out
    assert out.count("before") <= 1
    assert sorted(line for line in out.replace("before ", "").split("\n") if line) == [f"item {i}" for i in range(4)]


def test_a_call_like_metaflows(tmp_path: Any) -> None:
    """Four positional arguments, the fourth a folder for files, which isn't used."""
    assert parallel_map(lambda i: i, [1, 2], 2, str(tmp_path)) == [1, 2]
    assert list(tmp_path.iterdir()) == []
