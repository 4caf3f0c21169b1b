"""Pools of threads or processes that the caller has started: a forked worker has none of their threads.

Pools of threads get new threads. Pools of processes raise an error, for their processes answer to the parent alone.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from typing import Any

_PROCESS_EXECUTORS = ("concurrent.futures.process", "joblib.externals.loky.process_executor", "loky.process_executor")
_POOLS = ("multiprocessing.pool", "multiprocess.pool")
_NOT_USABLE = (
    "parallel_map: a worker can't use the caller's process pool, whose processes answer to the caller alone.\n"
    "Create the pool inside the function, or use parallel_map for the inner work too."
)


def running_executors() -> list[Any]:
    """The executors of concurrent.futures that this process has started: their threads refer to them."""
    executors = []
    for thread in threading.enumerate():
        references = [*getattr(thread, "_args", ()), getattr(thread, "executor_reference", None)]
        executors += [reference() for reference in references if isinstance(reference, weakref.ref)]
    return [executor for executor in executors if hasattr(executor, "submit")]


def renew_executors(executors: Iterable[Any]) -> None:
    """Gives inherited thread pools new threads, in a worker."""
    for executor in executors:
        state = executor.__dict__
        if "_idle_semaphore" in state:  # a ThreadPoolExecutor; as in its __init__, since there is no public method
            queue = type(state["_work_queue"])()
            state.update(_threads=set(), _idle_semaphore=threading.Semaphore(0), _work_queue=queue)
            state["_shutdown_lock"] = threading.Lock()


def guard_pools() -> None:
    """Makes every inherited pool of processes raise an error when it is used, in a worker."""
    for name in _PROCESS_EXECUTORS:
        if executor := getattr(sys.modules.get(name), "ProcessPoolExecutor", None):
            _guard_submit(executor)
    for name in _POOLS:
        module = sys.modules.get(name)
        if hasattr(module, "ThreadPool"):  # the last class of the module: it is imported completely
            _guard_pool(module)


def _guard_submit(executor: Any) -> None:
    submit = executor.submit
    error = sys.modules["concurrent.futures.process"].BrokenProcessPool

    @functools.wraps(submit)
    def guarded(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        queue = getattr(self, "_call_queue", None)
        if getattr(queue, "_opid", os.getpid()) != os.getpid():  # the process that created it
            raise error(_NOT_USABLE)
        return submit(self, *args, **kwargs)

    executor.submit = guarded


def _guard_pool(module: Any) -> None:
    check = module.Pool._check_running  # noqa: SLF001  every method that takes work calls it

    def guarded(self: Any) -> None:
        check(self)
        if self._worker_handler.is_alive():
            return
        if not isinstance(self, module.ThreadPool):
            raise RuntimeError(_NOT_USABLE)  # noqa: TRY004  no argument is wrong
        module.ThreadPool.__init__(self, self._processes, self._initializer, self._initargs)

    module.Pool._check_running = guarded  # noqa: SLF001
