"""The cores and memory that this process may use, from its cgroups v1 and v2, and how workers share the cores."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from .signals import interrupts_held, is_refusal

_NO_LIMIT_BYTES = 1 << 60  # cgroup v1 writes a larger number for "no limit"
_process_sharers = (
    0  # the number of workers that share the cores, if this is one: nested calls don't multiply processes
)
_thread_sharers = threading.local()  # .size: the same for a worker thread


def core_sharers_with(workers: int) -> int:
    """The number of workers that share this process's cores once it has started this many."""
    return max(1, core_sharers()) * workers


def set_core_sharers(size: int) -> None:
    """Records that this process is a worker, and how many workers share the cores."""
    global _process_sharers  # noqa: PLW0603  a fact about this process
    _process_sharers = size
    if getattr(_thread_sharers, "size", 0):
        _thread_sharers.size = 0


def set_thread_core_sharers(size: int) -> None:
    """Records how many threads share the cores, this one included."""
    _thread_sharers.size = size


def core_sharers() -> int:
    """The number of workers that share this process's cores; 0 outside of workers."""
    return getattr(_thread_sharers, "size", 0) or _process_sharers


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


def out_of_memory_kills() -> int:
    """The number of out-of-memory kills in this process's cgroup; v2 and v1 write `oom_kill N`."""
    for folder in cgroup_folders("memory"):
        for line in lines_of(f"{folder}/memory.events") + lines_of(f"{folder}/memory.oom_control"):
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def memory_figures() -> dict[str, int]:
    """Bytes: limit, use and peak of the innermost cgroup that has a limit, and the memory available on the machine."""
    files = {
        "limit": ("memory.max", "memory.limit_in_bytes"),
        "in use": ("memory.current", "memory.usage_in_bytes"),
        "highest": ("memory.peak", "memory.max_usage_in_bytes"),
    }
    figures: dict[str, int] = {}
    for folder in cgroup_folders("memory"):
        words = {name: words_of(f"{folder}/{v2}") or words_of(f"{folder}/{v1}") for name, (v2, v1) in files.items()}
        limit = words["limit"]
        if limit and limit[0] != "max" and int(limit[0]) < _NO_LIMIT_BYTES:
            figures = {name: int(value[0]) for name, value in words.items() if value}
            break
    for line in lines_of("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            figures["available on the machine"] = int(line.split()[1]) * 1024
    return figures


def cgroup_folders(controller: str, proc: str = "/proc/self") -> list[str]:
    """The folders of this process's cgroup for a controller, from the innermost up to the mount; cgroup v1 and v2.

    Format of /proc/self/cgroup: cgroups(7); of mountinfo: proc(5). In a container the mount's root may be the
    container's own cgroup, which is then removed from the path.
    """
    return _folders_within(controller, tuple(lines_of(f"{proc}/cgroup")), f"{proc}/mountinfo")


@functools.lru_cache(maxsize=16)
def _folders_within(controller: str, membership: tuple[str, ...], mountinfo: str) -> list[str]:
    paths = {}  # "" (v2) or a v1 controller → path within the hierarchy
    for line in membership:
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    folders = []
    for line in lines_of(mountinfo):
        head, _, right = line.partition(" - ")
        root, mount = head.split()[3:5]
        kind, _, options = right.split(None, 2)
        name = {"cgroup2": "", "cgroup": controller}.get(kind)
        if name not in paths or (kind == "cgroup" and controller not in options.split(",")):
            continue
        inner = os.path.relpath(paths[name], root).split("/")
        parts = [part for part in inner if part not in ("", ".", "..")]
        folders += ["/".join([mount, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return folders


def lines_of(path: str) -> list[str]:
    try:
        with interrupts_held(), Path(path).open("rb", buffering=0) as file:  # closed even if interrupted
            return file.read().decode(errors="replace").splitlines()
    except OSError as error:  # not Linux, another cgroup version, or hidden: no known limit
        if not is_refusal(error):
            raise
        return []


def words_of(path: str) -> list[str]:
    return " ".join(lines_of(path)).split()
