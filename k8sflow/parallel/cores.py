"""How many cores a call may use, and how many workers share them already."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping

from .cgroups import cgroup_folders, words_of

_crowd = 0  # in a worker process: how many workers share the cores, so that nested calls don't multiply processes
_thread_crowd = threading.local()  # .size: the same for a worker thread


def join_crowd(workers: int) -> None:
    """Notes that this process is one of so many workers of a call."""
    global _crowd  # noqa: PLW0603  a fact about this process
    _crowd = max(1, sharers()) * workers
    _thread_crowd.size = 0


def join_thread_crowd(size: int) -> None:
    """Notes that so many threads share the cores with this one."""
    _thread_crowd.size = size


def sharers() -> int:
    """How many workers share this process's cores; 0 outside of any worker."""
    return getattr(_thread_crowd, "size", 0) or _crowd


def available_cores(environ: Mapping[str, str] = os.environ, proc: str = "/proc/self") -> int:
    """The number of cores this process may use.

    `K8SFLOW_CPUS` if it is set (in a pod: the CPU request); else the smaller of the cgroup's CPU quota, rounded up,
    and the process's affinity.

    Raises:
        ValueError: `K8SFLOW_CPUS` is not a whole number of at least 1.
    """
    text = environ.get("K8SFLOW_CPUS", "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"K8SFLOW_CPUS is {text!r}; it must be a whole number of at least 1, or unset")
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cpu_quotas(proc))]))


def _cpu_quotas(proc: str) -> Iterator[float]:
    """CPU quotas, in cores, of this process's cgroup and of those above it: v2's cpu.max, v1's cpu.cfs_*."""
    for folder in cgroup_folders("cpu", proc):
        words = words_of(f"{folder}/cpu.max")
        if not words:
            words = words_of(f"{folder}/cpu.cfs_quota_us") + words_of(f"{folder}/cpu.cfs_period_us")
        if len(words) == 2 and words[0] not in ("max", "-1"):  # noqa: PLR2004  quota and period
            yield int(words[0]) / int(words[1])
