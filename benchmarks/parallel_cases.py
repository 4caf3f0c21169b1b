"""The cases of the parallel_map benchmark: functions, data that workers inherit, and each case's bare operations."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from parallel_contenders import Map, bare_answers, bare_forks, bare_queue, halves, plain
from parallel_report import BIG, COLD, MANY, SMALL, SUMS, UNEVEN

matrix = np.zeros((8, 1))  # inherited by forks; the matrix cases fill it
units: list[int] = []  # the amount of work of each item of the uneven case
source = np.zeros(0)  # what memcpy copies


def noop(_: int) -> None:
    return None


def block_sum(index: int) -> float:
    return float(matrix[index].sum())


def spin(index: int) -> int:
    total = 0
    for i in range(units[index]):
        total += i & 7
    return total


def half_gibibyte(index: int) -> np.ndarray:
    return np.full(64 << 20, index, np.float64)


def mebibyte(index: int) -> np.ndarray:
    return np.full(1 << 20, index & 127, np.uint8)


def nap(seconds: float) -> None:
    time.sleep(seconds)


def memcpy(_func: object, _items: object) -> np.ndarray:
    """One copy of 1 GiB into fresh memory, huge pages where the system has them."""
    return source.copy()


@dataclass
class Case:
    """One function on some items.

    Args:
        name: Its name in tables, in JSON and in ranges.yaml.
        func: The function.
        items: The items.
        bare: Bare operations by name; the first one is the divisor in the table.
        without: Contenders that would need too long.
        setup: Creates the data.
        teardown: Frees the data.
        rounds: How many rounds, as a multiple of ``--times``.
        warm_gib: Memory that is touched and freed before each call.
    """

    name: str
    func: Callable[[Any], Any]
    items: Iterable[Any]
    bare: dict[str, Map]
    without: set[str] = field(default_factory=set)
    setup: Callable[[], None] = lambda: None
    teardown: Callable[[], None] = lambda: None
    rounds: float = 1.0
    warm_gib: float = 0.0


def make_matrix(gigabytes: int) -> Callable[[], None]:
    def setup() -> None:
        global matrix  # noqa: PLW0603
        matrix = np.ones((8, gigabytes * 2**30 // 64))

    return setup


def make_source() -> None:
    global source  # noqa: PLW0603
    source = np.ones(128 << 20)


def drop() -> None:
    global matrix, source  # noqa: PLW0603
    matrix = source = np.zeros(0)


def calibrate() -> None:
    """Items of 10 to 200 ms of pure Python, fixed by their amount of work and not by the clock."""
    million = 1_000_000
    units[:] = [million]
    best = min(_seconds_of_first_item() for _ in range(5))
    draw = random.Random(1)
    units[:] = [int(draw.uniform(0.010, 0.200) / best * million) for _ in range(64)]


def _seconds_of_first_item() -> float:
    started = time.perf_counter()
    spin(0)
    return time.perf_counter() - started


def matrix_sum(name: str, gigabytes: int) -> Case:
    bare = {"plain sum": plain, "two forks, shared by hand": halves(lambda _: 1)}
    return Case(
        name, block_sum, range(8), bare, setup=make_matrix(gigabytes), teardown=drop, rounds=5, warm_gib=0.5
    )  # fmt: skip


def returning(name: str, func: Callable[[int], np.ndarray], count: int) -> Case:
    bare = {"memcpy of 1 GiB": memcpy, "one core": plain}
    return Case(name, func, range(count), bare, setup=make_source, teardown=drop, warm_gib=4)


CASES = [
    Case(
        COLD,
        noop,
        range(200),
        {"two forks and waits": bare_forks, "two forks with a pipe each": bare_answers, "plain loop": plain},
        rounds=6,
    ),
    Case(MANY, noop, range(100_000), {"plain loop": plain}, without={"Metaflow"}),
    matrix_sum(SUMS[0], 2),
    matrix_sum(SUMS[1], 4),
    Case(
        UNEVEN,
        spin,
        range(64),
        {
            "one core": plain,
            "two forks, shared by hand": halves(units.__getitem__),
            "two forks, next item when free": bare_queue,
        },
        setup=calibrate,
        rounds=0.6,
    ),
    returning(BIG, half_gibibyte, 2),
    returning(SMALL, mebibyte, 1000),
]
