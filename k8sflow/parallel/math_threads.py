"""BLAS and OpenMP, held to one thread while workers use all cores."""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cgroups import lines_of
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
            controller = _thread_controller(len(sys.modules)) if self._calls == 1 else None
            if controller is not None:
                self._limits = controller.select(user_api="blas").limit(limits=1)

    def free_blas(self) -> None:
        with self._lock:
            self._calls -= 1
            limits, self._limits = (None, self._limits) if self._calls else (self._limits, None)
            if limits is not None:
                limits.restore_original_limits()

    @staticmethod
    def openmp_holder() -> Callable[[], object] | None:
        """What a worker calls to hold OpenMP to one thread; None if no OpenMP library is loaded."""
        controller = _thread_controller(len(sys.modules))
        openmp = controller and controller.select(user_api="openmp")
        return functools.partial(openmp.limit, limits=1) if openmp and openmp.lib_controllers else None


math_threads = _MathThreads()


@functools.lru_cache(maxsize=1)
def _thread_controller(_modules: int) -> Any:
    """What threadpoolctl knows of the loaded libraries; looked at again when there are more modules."""
    if "numpy" not in sys.modules and "torch" not in sys.modules:
        return None
    threadpoolctl = optional_module("threadpoolctl")
    return threadpoolctl and threadpoolctl.ThreadpoolController()


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
