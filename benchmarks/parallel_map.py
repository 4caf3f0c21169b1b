"""parallel_map against its peers and the bare operation: one run, minimum of n, two workers.

    .venv-bench/bin/python benchmarks/parallel_map.py [--rounds 5] [--only TEXT] [--plot FILE]

Contenders take turns within each round, so that a noisy moment of the machine hits all of them. Each case has a
bare operation of its own, measured in the same run: two forks, the plain loop, a memcpy. Prints Markdown tables.

A virtual machine gives memory that has been free for some seconds back to its host (free page reporting), and whoever
touches it next pays for it: 1 to 5 s per GiB, where a memcpy takes 0.2 s. So before each single run of a case with
large data, as much memory as it needs is touched and freed, whoever's turn it is.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import pickle
import platform
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import mpire
import numpy as np
from joblib.externals.loky import get_reusable_executor
from metaflow import parallel_map as metaflow_parallel_map
from parallel_report import BIG, COLD, MANY, SMALL, SUMS, UNEVEN, WAIT, Figures, plot, table, targets

from k8sflow.parallel import parallel_imap_unordered, parallel_map

WORKERS = 2
FORK = multiprocessing.get_context("fork")
LONG_SECONDS = 4.0  # a contender that takes longer runs once only
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Any]

matrix = np.zeros((8, 1))  # inherited by forks; the matrix cases fill it
units: list[int] = []  # how much each item of the uneven case works


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


def ours(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    return parallel_map(func, items, WORKERS)


def pool(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    with FORK.Pool(WORKERS) as workers:
        return workers.map(func, items)


def executor(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    items = list(items)
    with ProcessPoolExecutor(WORKERS, mp_context=FORK) as workers:
        return list(workers.map(func, items, chunksize=max(1, len(items) // (4 * WORKERS) if len(items) > 64 else 1)))


def loky(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    try:
        return joblib.Parallel(n_jobs=WORKERS)(joblib.delayed(func)(item) for item in items)
    finally:
        get_reusable_executor().shutdown(kill_workers=True)


def mpire_pool(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    with mpire.WorkerPool(WORKERS, start_method="fork") as workers:
        return workers.map(func, list(items), concatenate_numpy_output=False)


def threads(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    with ThreadPoolExecutor(WORKERS) as workers:
        return list(workers.map(func, items))


def metaflow(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    return metaflow_parallel_map(func, items, WORKERS)


def plain(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    return list(map(func, items))


def bare_forks(_func: object, _items: object) -> None:
    fork_each(lambda _: None, range(WORKERS))


def bare_halves(func: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """What two cores of this machine can do: two forks that share the items by a best guess made beforehand."""
    weigh: Callable[[Any], int] = units.__getitem__ if func is spin else lambda _: 1
    shares: list[list[Any]] = [[] for _ in range(WORKERS)]
    load = [0] * WORKERS
    for item in sorted(items, key=weigh, reverse=True):
        target = load.index(min(load))
        shares[target].append(item)
        load[target] += weigh(item)
    fork_each(lambda share: [func(item) for item in share], shares)


def bare_answers(func: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """The least that brings results home: two forks, each sends those of its half through a pipe."""
    items = list(items)
    pipes = [os.pipe() for _ in range(WORKERS)]

    def answer(number: int) -> None:
        os.write(pipes[number][1], pickle.dumps([func(item) for item in items[number::WORKERS]]))

    fork_each(answer, range(WORKERS))
    results: list[Any] = [None] * len(items)
    for number, (out, into) in enumerate(pipes):
        results[number::WORKERS] = pickle.loads(os.read(out, 1 << 16))
        os.close(out)
        os.close(into)
    return results


def bare_queue(func: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """What can be done without knowing what an item takes: two forks, each takes the next item when it is free."""
    items = list(items)
    out, into = os.pipe()
    os.write(into, bytes(range(len(items))))
    os.close(into)

    def take(_number: int) -> None:
        while number := os.read(out, 1):
            func(items[number[0]])

    fork_each(take, range(WORKERS))
    os.close(out)


def fork_each(func: Callable[[Any], Any], arguments: Iterable[Any]) -> None:
    pids = []
    for argument in arguments:
        pid = os.fork()
        if pid == 0:
            func(argument)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)


source = np.zeros(0)


def memcpy(_func: object, _items: object) -> np.ndarray:
    """One copy of 1 GiB into fresh memory, huge pages where the system has them."""
    return source.copy()


NAMES: dict[str, Map] = {
    "k8sflow": ours,
    "Pool": pool,
    "ProcessPoolExecutor": executor,
    "joblib/loky": loky,
    "mpire": mpire_pool,
    "threads": threads,
    "Metaflow": metaflow,
}


@dataclass
class Case:
    name: str
    func: Callable[[Any], Any]
    items: Iterable[Any]
    bare: dict[str, Map]
    without: set[str] = field(default_factory=set)
    setup: Callable[[], None] = lambda: None
    teardown: Callable[[], None] = lambda: None
    rounds: float = 1.0
    warm_gib: float = 0.0  # memory that is touched and freed before each run


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
    """Items of 10 to 200 ms of pure Python, by their amount of work and not by the clock."""
    units[:] = [1_000_000]
    best = min(timed(plain, spin, [0])[0] for _ in range(5))
    draw = random.Random(1)
    units[:] = [int(draw.uniform(0.010, 0.200) / best * 1_000_000) for _ in range(64)]


CASES = [
    Case(
        COLD,
        noop,
        range(200),
        {"two forks and waits": bare_forks, "two forks with a pipe each": bare_answers, "plain loop": plain},
        rounds=6,
    ),
    Case(MANY, noop, range(100_000), {"plain loop": plain}, without={"Metaflow"}),
    Case(
        SUMS[0],
        block_sum,
        range(8),
        {"plain sum": plain, "two forks, shared by hand": bare_halves},
        setup=make_matrix(2),
        teardown=drop,
        rounds=5,
        warm_gib=0.5,
    ),
    Case(
        SUMS[1],
        block_sum,
        range(8),
        {"plain sum": plain, "two forks, shared by hand": bare_halves},
        setup=make_matrix(4),
        teardown=drop,
        rounds=5,
        warm_gib=0.5,
    ),
    Case(
        UNEVEN,
        spin,
        range(64),
        {"one core": plain, "two forks, shared by hand": bare_halves, "two forks, next item when free": bare_queue},
        setup=calibrate,
        rounds=0.6,
    ),
    Case(
        BIG,
        half_gibibyte,
        range(2),
        {"memcpy of 1 GiB": memcpy, "one core": plain},
        setup=make_source,
        teardown=drop,
        warm_gib=4,
    ),
    Case(
        SMALL,
        mebibyte,
        range(1000),
        {"memcpy of 1 GiB": memcpy, "one core": plain},
        setup=make_source,
        teardown=drop,
        warm_gib=4,
    ),
]


def waiting() -> tuple[float, float]:
    """Seconds that the parent waits for busy workers, and its CPU seconds in that time: no start, no end."""
    results = parallel_imap_unordered(nap, [0.5, 0.5, 3.0, 3.0], WORKERS, chunk_size=1)
    next(results), next(results)  # and both have their next item
    cpu, began = time.process_time(), time.perf_counter()
    next(results)
    figures = time.perf_counter() - began, time.process_time() - cpu
    results.close()
    return figures


def least_waiting() -> tuple[float, float]:
    return min((waiting() for _ in range(3)), key=lambda figures: figures[1])


def warm(gib: float) -> None:
    arrays = [np.ones(32 << 20) for _ in range(round(gib * 4))]
    del arrays


def timed(run: Map, func: Callable[[Any], Any], items: Iterable[Any]) -> tuple[float, float, float]:
    """Seconds, CPU seconds of this process, MiB by which its memory grew at most."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew, proc(5)
    memory = status_mib("VmRSS")
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    result = run(func, items)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    del result
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, status_mib("VmHWM") - memory


def status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def measure(case: Case, rounds: int) -> Figures:
    case.setup()
    contenders = {**case.bare, **{name: run for name, run in NAMES.items() if name not in case.without}}
    figures: Figures = {}
    for round_ in range(max(1, round(rounds * case.rounds))):
        for name, run in contenders.items():
            if round_ and figures[name][0] > LONG_SECONDS and name in NAMES and name != "k8sflow":
                continue
            warm(case.warm_gib)
            new = timed(run, case.func, case.items)
            old = figures.get(name, new)
            figures[name] = min(old[0], new[0]), min(old[1], new[1]), max(old[2], new[2])
    case.teardown()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, numpy {np.__version__}, Linux {platform.release()}")
    print(f"{len(os.sched_getaffinity(0))} cores; load before: {load:.1f}\n")
    # First: peers leave threads behind, whose CPU would count.
    waited = least_waiting() if options.only in WAIT else None
    results: dict[str, Figures] = {}
    for case in CASES:
        if options.only in case.name:
            with contextlib.redirect_stderr(sys.stdout):
                results[case.name] = measure(case, options.rounds)
            print(table(case.name, results[case.name], next(iter(case.bare), None)), flush=True)
    print(targets(results, waited))
    print(f"Load after: {os.getloadavg()[0]:.1f}")
    if options.plot and results:
        bare = {case.name: set(case.bare) for case in CASES}
        plot(results, bare, options.plot)


if __name__ == "__main__":
    main()
