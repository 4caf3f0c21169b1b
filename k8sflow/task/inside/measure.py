"""The resources that this process has used, as the kernel counts them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from k8sflow.parallel.limits import cgroup_folders, lines_of, words_of
from k8sflow.storage.usage import Usage

# ru_maxrss is in KiB on Linux (getrusage(2)), in bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")  # cgroup v2 (from Linux 5.19) and v1


class _State:
    """Facts about this process."""

    has_own_cgroup = False


def set_own_cgroup() -> None:
    """Records that this process is the only task that its cgroup has had, so that the cgroup's peak is the task's."""
    _State.has_own_cgroup = True


def usage_so_far(folders: Sequence[str] | None = None) -> Usage:
    """The usage of this process, and of the processes that it has waited for, since it started.

    The memory is the peak of the cgroup if the task has it for itself: that counts processes that ran at the same time,
    and files in the page cache. Otherwise, as with several tasks on this machine or in a pod, it is the largest peak of
    one process.

    Args:
        folders: The folders of the task's own cgroup, the innermost first; None for those of this process, if it has
            one for itself.
    """
    if folders is None:
        folders = cgroup_folders("memory") if _State.has_own_cgroup else ()
    read, written = _input_and_output()
    try:
        import resource  # noqa: PLC0415  not on Windows
    except ImportError:
        return Usage(None, None, read, written)
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    largest = max(_own_peak() or own.ru_maxrss * _RSS_UNIT, children.ru_maxrss * _RSS_UNIT)
    seconds = sum(each.ru_utime + each.ru_stime for each in (own, children))
    peak = _peak(folders)
    return Usage(peak or largest, round(seconds, 3), read, written, is_partial=not peak and children.ru_maxrss > 0)


def _peak(folders: Sequence[str]) -> int | None:
    """The peak of a cgroup's memory in bytes, or None if the kernel doesn't tell it."""
    words = [word for name in _PEAKS for folder in folders[:1] for word in words_of(f"{folder}/{name}")]
    return int(words[0]) if words and words[0].isdecimal() else None


def _own_peak() -> int | None:
    """The peak of this process's memory in bytes (proc(5), VmHWM), or None if the kernel doesn't tell it.

    That of getrusage(2) includes the memory of the process from which this one was started, as it was at exec(2).
    """
    for line in lines_of("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _input_and_output() -> tuple[int | None, int | None]:
    """Bytes read and written by system calls (proc(5), /proc/pid/io)."""
    found = dict(line.split(": ", 1) for line in lines_of("/proc/self/io") if ": " in line)
    read, written = found.get("rchar"), found.get("wchar")
    return (int(read) if read else None), (int(written) if written else None)
