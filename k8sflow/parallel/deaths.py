"""A worker's death, explained."""

from __future__ import annotations

import signal

from .cgroups import cgroup_folders, lines_of, words_of

LAST_BREATH_SECONDS = 1.0  # a pipe's end is seen this much before its process's at most
_NO_LIMIT_BYTES = 1 << 60  # what cgroup v1 writes for "none" is above this


class WorkerDied(RuntimeError):  # noqa: N818  says what happened
    """A worker process ended while it had work: killed, crashed, or left by the function itself.

    Attributes:
        index: The item it was busy with, None where that is unknown.
        exitcode: As in `subprocess`: the exit status, or the negative number of the signal; None if unknown.
    """

    def __init__(self, message: str, index: int | None = None, exitcode: int | None = None) -> None:
        super().__init__(message, index, exitcode)
        self.message = message
        self.index = index
        self.exitcode = exitcode

    def __str__(self) -> str:
        return self.message


class WorkerOutOfMemory(WorkerDied, MemoryError):  # noqa: N818  says what happened
    """A worker was killed by the kernel for want of memory; the cgroup's counter says so."""


def how_it_ended(code: int | None) -> str:
    if code is None:
        return "ended (its status was collected by somebody else)"
    return f"exited with status {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"


def death_error(what: str, index: int | None, code: int | None, kills_before: int) -> WorkerDied:
    kind = WorkerDied
    if code is None:
        advice = "The function must not close descriptors that it didn't open, nor reap children that it didn't start."
    elif code >= 0:
        advice = "The function, or something it called, left the process by os._exit."
    elif -code in (getattr(signal, name, 0) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")):
        advice = "A compiled extension crashed; faulthandler.enable() before the call shows where."
    elif -code != signal.SIGKILL:
        advice = "Somebody sent it this signal."
    elif out_of_memory_kills() > kills_before:
        kind = WorkerOutOfMemory
        advice = (
            f"The kernel killed it for want of memory: ask for more, or set max_parallel lower. {_memory_figures()}"
        )
    else:
        advice = f"SIGKILL comes from the kernel when memory is short, or from a kill -9. {_memory_figures()}"
    return kind(f"a worker of parallel_map {what}\n{advice}", index, code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def out_of_memory_kills() -> int:
    """How often the kernel has killed a process of this cgroup for want of memory; v2 and v1 write `oom_kill N`."""
    for folder in cgroup_folders("memory"):
        for line in lines_of(f"{folder}/memory.events") + lines_of(f"{folder}/memory.oom_control"):
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _memory_figures() -> str:
    files = {
        "limit": ("memory.max", "memory.limit_in_bytes"),
        "in use": ("memory.current", "memory.usage_in_bytes"),
        "highest": ("memory.peak", "memory.max_usage_in_bytes"),
    }
    figures = []
    for folder in cgroup_folders("memory"):
        words = {name: words_of(f"{folder}/{v2}") or words_of(f"{folder}/{v1}") for name, (v2, v1) in files.items()}
        limit = words["limit"]
        if limit and limit[0] != "max" and int(limit[0]) < _NO_LIMIT_BYTES:
            figures += [f"{name} {int(value[0]) / 2**20:.0f} MiB" for name, value in words.items() if value]
            break
    for line in lines_of("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            figures.append(f"available on the machine {int(line.split()[1]) / 1024:.0f} MiB")
    return f"Memory: {', '.join(figures)}."
