"""BLAS and OpenMP, held to one thread while workers use all cores."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .limits import lines_of
from .pickling import optional_module

ONE_THREAD_EACH = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class _MathThreads:
    """Holds the loaded BLAS and OpenMP libraries to one thread while calls run.

    BLAS is held in this process, from before the first fork to the end of the last call: OpenBLAS answers a change
    made in a forked child by starting all its threads first. OpenMP's number is the calling thread's own.
    """

    def __init__(self) -> None:
        self.renew_lock()
        self._calls = 0
        self._limits: Any = None

    def renew_lock(self) -> None:
        self._lock = threading.RLock()

    def hold_blas(self) -> None:
        with self._lock:
            self._calls += 1
            blas = _loaded_libraries(len(sys.modules))["blas"] if self._calls == 1 else None
            if blas is not None:
                self._limits = blas.limit(limits=1)

    def free_blas(self) -> None:
        with self._lock:
            self._calls -= 1
            limits, self._limits = (None, self._limits) if self._calls else (self._limits, None)
            if limits is not None:
                limits.restore_original_limits()

    @staticmethod
    def openmp_holder() -> Callable[[], object] | None:
        """What a worker calls to hold OpenMP to one thread; None if no OpenMP library is loaded."""
        openmp = _loaded_libraries(len(sys.modules))["openmp"]
        return functools.partial(openmp.limit, limits=1) if openmp is not None else None


math_threads = _MathThreads()
if hasattr(os, "register_at_fork"):  # another thread of the parent may have held the lock
    os.register_at_fork(after_in_child=math_threads.renew_lock)


@functools.lru_cache(maxsize=1)
def _loaded_libraries(_modules: int) -> dict[str, Any]:
    """What holds the loaded BLAS and OpenMP libraries: threadpoolctl's controllers, None for none.

    Looked at again when there are more modules.
    """
    threadpoolctl = optional_module("threadpoolctl") if {"numpy", "torch"} & sys.modules.keys() else None
    if threadpoolctl is None:
        return {"blas": None, "openmp": None}
    everything = threadpoolctl.ThreadpoolController()
    selected = {kind: everything.select(user_api=kind) for kind in ("blas", "openmp")}
    return {kind: controller if controller.lib_controllers else None for kind, controller in selected.items()}


def warn_of_openmp() -> None:
    """Says that workers may hang where that can't be prevented.

    GNU's OpenMP doesn't survive a fork once it has run: the next parallel region waits for threads that the child
    doesn't have. Held to one thread (threadpoolctl) it has no parallel regions.
    """
    if optional_module("threadpoolctl") is not None or not Path("/proc/self/task").is_dir():
        return
    if len(list(Path("/proc/self/task").iterdir())) <= threading.active_count():
        return
    if any("libgomp" in line for line in lines_of("/proc/self/maps")):
        warnings.warn(
            "This process has run OpenMP code (libgomp), whose threads don't survive a fork: workers of parallel_map "
            "may hang when they run OpenMP code too. Install threadpoolctl, with which workers are held to one thread "
            "each and are safe; or use OpenMP in the workers only; or use backend='threads'.",
            RuntimeWarning,
            stacklevel=6,
        )
