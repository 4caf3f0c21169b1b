"""Large results and items: complete, writable, and freed promptly."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k8sflow.parallel import WorkerDied, forked, loop, parallel_imap, parallel_map

MIB = 2**20


@pytest.fixture(params=["read", "streamed"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the worker's memory readable, and without, as under a strict seccomp profile."""
    how: str = request.param
    if how == "streamed":

        def forbidden(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(forked, "read_memory", forbidden)
    return how


def make(kind: str, i: int) -> Any:
    size = 3 * MIB + i
    return {
        "array": lambda: np.full(size, i, np.uint8),
        "big array": lambda: np.full((6 * MIB + i) // 2, i, np.int32),
        "fortran": lambda: np.asfortranarray(np.full((1000, 400), i, np.float64)),
        "strided": lambda: np.full((1000, 800), i, np.float64)[::2, ::2],
        "read-only": lambda: np.frombuffer(bytes([i]) * size, np.uint8),
        "bytes": lambda: bytes([i]) * size,
        "bytearray": lambda: bytearray([i]) * size,
        "text": lambda: "ä€" * size + str(i),
        "mixed": lambda: {"a": np.full(size, i, np.uint8), "b": [bytes([i]) * size, "x", np.arange(10)], "c": i},
        "objects": lambda: np.array([{"i": i}, None] * 50_000, dtype=object),
    }[kind]()


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return (
            left.dtype == right.dtype and left.flags.writeable == right.flags.writeable and bool((left == right).all())
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


KINDS = ["array", "big array", "fortran", "strided", "read-only", "bytes", "bytearray", "text", "mixed", "objects"]


@pytest.mark.parametrize("kind", KINDS)
def test_large_results_are_what_the_function_returned(kind: str, transport: str) -> None:
    """Also if small and large results alternate."""
    results = parallel_map(lambda i: make(kind, i) if i % 2 else i, range(6), 2)
    for i, result in enumerate(results):
        assert equal(result, make(kind, i) if i % 2 else i)


@pytest.mark.parametrize("kind", ["array", "bytes", "mixed"])
def test_large_results_of_spawned_workers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "START_METHOD", "spawn")
    for i, result in enumerate(parallel_map(lambda i: make(kind, i), range(3), 2)):
        assert equal(result, make(kind, i))


def test_results_are_writable_and_their_own() -> None:
    one, two = parallel_map(lambda i: np.zeros(MIB), range(2), 2)
    one += 1
    assert two.sum() == 0
    assert one.sum() == MIB


def test_large_items_of_a_generator(start_method: str) -> None:
    def generate() -> Iterator[Any]:
        for i in range(6):
            yield make("mixed", i)

    assert parallel_map(lambda item: item["c"] + item["a"][-1] - item["b"][0][-1], generate(), 2) == list(range(6))


@pytest.mark.slow
def test_large_inputs_are_not_copied() -> None:
    """A closure and items of 400 MB cost the workers almost no memory."""
    matrix = np.ones((50, MIB))

    def proportional_kib(_: int) -> int:
        with open("/proc/self/smaps_rollup") as file:
            fields = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
        return int(fields["Private_Dirty"].split()[0]) + int(matrix[0, 0]) - 1

    assert max(parallel_map(proportional_kib, range(4), 2)) < 30_000


PEAK = """
import resource, sys
import numpy as np
from k8sflow.parallel import parallel_map
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
before = peak()
results = parallel_map(lambda i: np.full({mib} << 20, i & 127, np.uint8), range({count}), 2)
assert all((array[0], array[-1]) == (i & 127, i & 127) for i, array in enumerate(results))
print(peak() - before)
"""


@pytest.mark.parametrize(("mib", "count"), [(1, 300), (60, 4), pytest.param(1, 1000, marks=pytest.mark.slow)])
def test_the_parents_peak_memory_is_its_results_and_little_more(mib: int, count: int) -> None:
    """Less than three results in flight beside them."""
    script = PEAK.format(mib=mib, count=count)
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120).stdout
    assert float(out) < mib * count + 3 * max(mib, 4)


def test_no_memory_for_a_result_is_a_memory_error(memory_bound: None) -> None:
    """It names the items; the worker itself has enough memory."""

    def func(_: int) -> np.ndarray:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return np.zeros(2**30, np.uint8)

    with pytest.raises(MemoryError, match="1,073,741,824 bytes of a result"):
        parallel_map(func, range(2), 2)


@pytest.fixture
def memory_bound() -> Iterator[None]:
    """Limits this process to half a gibibyte more than it has mapped."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_slow_consumer_holds_workers_back() -> None:
    """Results that are not consumed are not computed."""
    shared = memoryview(mmap.mmap(-1, 8)).cast("q")

    def func(i: int) -> np.ndarray:
        shared[0] = max(shared[0], i)
        return np.zeros(MIB)

    results = parallel_imap(func, range(1000), 1)
    for _ in range(5):
        next(results)
    assert shared[0] < 10
    results.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["array", "bytes"])
def test_a_result_of_five_gibibytes(kind: str) -> None:
    """Larger than a 32-bit length or one system call allows."""
    size = 5 * 2**30 + 3

    def func(i: int) -> Any:
        if kind == "bytes":
            return b"ab" * (size // 2) + b"c"
        array = np.zeros(size, np.uint8)
        array[::MIB] = i + 1
        array[-1] = 77
        return array

    (result,) = parallel_map(func, [0], 1)
    assert len(result) == size
    if kind == "bytes":
        assert result[:2] == b"ab"
        assert result[-3:] == b"abc"
    else:
        assert result[-1] == 77
        assert result[::MIB].sum(dtype=np.int64) == size // MIB + 1


@pytest.mark.slow
def test_a_worker_killed_amid_a_large_result_is_an_error() -> None:
    """At any moment: the call fails or the result is complete."""
    failures = 0
    for round_ in range(12):

        def func(_: int, delay: float = 0.05 * round_) -> np.ndarray:
            array = np.ones(40_000_000)
            killer = f"import os, time; time.sleep({delay}); os.kill({os.getpid()}, 9)"
            subprocess.Popen([sys.executable, "-S", "-c", killer], start_new_session=True)
            return array

        try:
            (result,) = parallel_map(func, [0], 1)
        except WorkerDied:
            failures += 1
        else:
            assert (result == 1).all()
    assert failures > 0
