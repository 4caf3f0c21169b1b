"""The contenders, which call a function on many items: k8sflow, its peers, and bare operations. All use two workers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import ModuleType
from typing import Any

from k8sflow.parallel import parallel_map

WORKERS = 2
FORK = multiprocessing.get_context("fork")
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Any]


def ours(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    return parallel_map(func, items, WORKERS)


def pool(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    with FORK.Pool(WORKERS) as workers:
        return workers.map(func, items)


def executor(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    items = list(items)
    with ProcessPoolExecutor(WORKERS, mp_context=FORK) as workers:
        return list(workers.map(func, items, chunksize=max(1, len(items) // (4 * WORKERS) if len(items) > 64 else 1)))


def threads(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    with ThreadPoolExecutor(WORKERS) as workers:
        return list(workers.map(func, items))


STANDARD: dict[str, Map] = {"k8sflow": ours, "Pool": pool, "ProcessPoolExecutor": executor, "threads": threads}
INSTALLED = ("joblib/loky", "mpire", "Metaflow")


def peers(functions: ModuleType) -> dict[str, Map]:
    """The contenders from PyPI; loky is sent the module of the functions by value, with the data that it holds."""
    import joblib
    import mpire
    from cloudpickle import register_pickle_by_value
    from joblib.externals.loky import get_reusable_executor
    from metaflow import parallel_map as metaflow_parallel_map

    register_pickle_by_value(functions)

    def loky(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
        try:
            return joblib.Parallel(n_jobs=WORKERS)(joblib.delayed(func)(item) for item in items)
        finally:
            get_reusable_executor().shutdown(kill_workers=True)

    def mpire_pool(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
        with mpire.WorkerPool(WORKERS, start_method="fork") as workers:
            return workers.map(func, list(items), concatenate_numpy_output=False)

    def metaflow(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
        return metaflow_parallel_map(func, items, WORKERS)

    return dict(zip(INSTALLED, (loky, mpire_pool, metaflow), strict=True))


def plain(func: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    return list(map(func, items))


def bare_forks(_func: object, _items: object) -> None:
    fork_each(lambda _: None, range(WORKERS))


def halves(weigh: Callable[[Any], int]) -> Map:
    """The limit of two cores: two forks that share the items by their weights, which are known beforehand."""

    def run(func: Callable[[Any], Any], items: Iterable[Any]) -> None:
        shares: list[list[Any]] = [[] for _ in range(WORKERS)]
        load = [0] * WORKERS
        for item in sorted(items, key=weigh, reverse=True):
            target = load.index(min(load))
            shares[target].append(item)
            load[target] += weigh(item)
        fork_each(lambda share: [func(item) for item in share], shares)

    return run


def bare_answers(func: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """The least work that returns results: two forks, each of which sends those of its half through a pipe."""
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
    """The limit where no item's duration is known: two forks, each of which takes the next item when it is free."""
    items = list(items)
    out, into = os.pipe()
    os.write(into, bytes(range(len(items))))
    os.close(into)

    def take(_number: int) -> None:
        while number := os.read(out, 1):
            func(items[number[0]])

    fork_each(take, range(WORKERS))
    os.close(out)


def fork_each(func: Callable[[Any], Any], arguments: Sequence[Any]) -> None:
    pids = []
    for argument in arguments:
        pid = os.fork()
        if pid == 0:
            func(argument)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
