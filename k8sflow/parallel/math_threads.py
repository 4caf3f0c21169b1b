"""BLAS and OpenMP, limited to one thread while workers use all cores."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from .pickling import optional_module
from .signals import is_refusal

ONE_THREAD_EACH = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

_PAUSE_SOFT = 1


class _MathThreads:
    """Limits the loaded BLAS and OpenMP libraries to one thread while calls run.

    BLAS is limited in this process, from before the first fork to the end of the last call: if the limit changes in a
    forked child, OpenBLAS starts all its threads first. OpenMP's number belongs to the calling thread.
    """

    def __init__(self) -> None:
        self.renew_lock()
        self._calls = 0
        self._limits: Any = None
        self.blas_threads: frozenset[int] = frozenset()  # started again by OpenBLAS after a fork, which ends them

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
                before = thread_ids()
                limits.restore_original_limits()
                self.blas_threads = thread_ids() - before

    @staticmethod
    def openmp_holder() -> Callable[[], object] | None:
        """The function by which a worker limits OpenMP to one thread; None if no OpenMP library is loaded."""
        openmp = _loaded_libraries(len(sys.modules))["openmp"]
        return functools.partial(openmp.limit, limits=1) if openmp is not None else None


def thread_ids() -> frozenset[int]:
    """The system's ids of this process's threads; none if they are unknown."""
    try:
        return frozenset(map(int, os.listdir("/proc/self/task")))  # noqa: PTH208
    except OSError as error:  # not Linux, or no /proc
        if not is_refusal(error):
            raise
        return frozenset()


math_threads = _MathThreads()
if hasattr(os, "register_at_fork"):  # another thread of the parent may have held the lock
    os.register_at_fork(after_in_child=math_threads.renew_lock)


@functools.lru_cache(maxsize=1)
def _loaded_libraries(_modules: int) -> dict[str, Any]:
    """Threadpoolctl's controllers of the loaded BLAS and OpenMP libraries; None if none is loaded.

    Examined again when more modules have been imported.
    """
    threadpoolctl = optional_module("threadpoolctl") if {"numpy", "torch"} & sys.modules.keys() else None
    if threadpoolctl is None:
        return {"blas": None, "openmp": None}
    everything = threadpoolctl.ThreadpoolController()
    selected = {kind: everything.select(user_api=kind) for kind in ("blas", "openmp")}
    return {kind: controller if controller.lib_controllers else None for kind, controller in selected.items()}


def can_hold_openmp() -> bool:
    """True if workers limit OpenMP to one thread: GNU's then has nothing to wait for in a forked child."""
    return math_threads.openmp_holder() is not None


def pause_openmp(library: str) -> bool:
    """Ends the idle threads that GNU's OpenMP keeps for this thread. Returns whether that succeeded.

    They don't survive a fork, and the next parallel region of the child would wait for them. Without them the child
    starts its own, as the parent does (OpenMP 5.0, omp_pause_resource_all; GCC 9).
    """
    import ctypes  # noqa: PLC0415  costs milliseconds; needed only where OpenMP is loaded

    try:
        return bool(ctypes.CDLL(library).omp_pause_resource_all(_PAUSE_SOFT) == 0)
    except (OSError, AttributeError):  # the file was replaced, or is an older version
        return False
