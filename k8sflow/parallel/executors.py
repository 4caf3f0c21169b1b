"""Executors that the caller has begun: in a forked worker their threads are missing, and results would never come."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import Any


def running_executors() -> list[Any]:
    """The executors of concurrent.futures that this process has begun: their threads name them."""
    executors = []
    for thread in threading.enumerate():
        references = [*getattr(thread, "_args", ()), getattr(thread, "executor_reference", None)]
        executors += [reference() for reference in references if isinstance(reference, weakref.ref)]
    return [executor for executor in executors if hasattr(executor, "submit")]


def renew_executors(executors: Iterable[Any]) -> None:
    """In a worker: gives inherited thread pools new threads, and has inherited process pools refuse work."""
    for executor in executors:
        state = executor.__dict__
        if "_idle_semaphore" in state:  # a ThreadPoolExecutor; as in its __init__, for there is no public way
            queue = type(state["_work_queue"])()
            state.update(_threads=set(), _idle_semaphore=threading.Semaphore(0), _work_queue=queue)
            state["_shutdown_lock"] = threading.Lock()
        elif "_broken" in state:
            state["_broken"] = "a worker of parallel_map can't use the caller's process pool: make one in the function"
            state["_shutdown_lock"] = threading.Lock()
