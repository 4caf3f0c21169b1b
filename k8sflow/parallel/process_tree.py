"""The descendants of a worker, including those in sessions of their own: found and killed when the call ends."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .limits import lines_of
from .signals import is_refusal

_PR_SET_CHILD_SUBREAPER = 36
_TRACKER = "resource_tracker"  # of multiprocessing and loky: it cleans up /dev/shm after other processes
_DEATH_SECONDS = 2.0  # the longest wait for a killed process to end
_CLEANUP_SECONDS = 5.0  # the longest wait for a tracker to clean up
_ROUNDS = 100  # scans of a worker's descendants: children of a killed one become the worker's


def _open_pidfd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; -1 if unavailable (not Linux, old kernel, seccomp).

    Raises:
        ProcessLookupError: The process has ended and was waited for.
    """
    if not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")):
        return -1
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError as error:
        if not is_refusal(error):
            raise
        return -1


def _kill(pid: int, pidfd: int) -> None:
    """Kills a process, by its descriptor if there is one: the pid may belong to another process by now."""
    with contextlib.suppress(ProcessLookupError):
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


@functools.lru_cache(maxsize=1)
def _adopter() -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415  only Linux has a use for it

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl and functools.partial(prctl, _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def prepare_adoption() -> None:
    """Loads ctypes for `adopt_orphans` in the parent, once, since that takes milliseconds."""
    _adopter()


def adopt_orphans() -> None:
    """Makes this process the parent of orphaned descendants, prctl(2), so that they stay below the worker."""
    if (adopter := _adopter()) is not None:
        adopter()


class ProcessTree:
    """The descendants of a call's workers; no other processes are examined."""

    def __init__(self) -> None:
        self._killed: list[tuple[int, int]] = []  # pid, pidfd
        self._trackers: list[tuple[int, int]] = []

    def kill_below(self, worker: int) -> None:
        """Kills the descendants of a live worker, except trackers, which end when they are no longer needed."""
        if not _children(worker):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)  # it must not start more processes
        for _ in range(_ROUNDS):
            if not self._kill_tree_once(worker):
                break

    def _kill_tree_once(self, worker: int) -> bool:
        known = {pid for pid, _ in self._trackers + self._killed}
        killed = []
        for pid in tree_below(worker):
            if pid in known or not _is_alive(pid):
                continue
            try:
                pidfd = _open_pidfd(pid)
            except ProcessLookupError:
                continue
            if _TRACKER in _command(pid):
                self._trackers.append((pid, pidfd))
                continue
            with contextlib.suppress(PermissionError):  # sudo
                _kill(pid, pidfd)
            killed.append((pid, pidfd))
        deadline = time.monotonic() + _DEATH_SECONDS
        for pid, pidfd in killed:
            _wait(pid, pidfd, deadline)
        self._killed += killed
        return bool(killed)

    def wait_for_trackers(self) -> None:
        """Waits until the trackers have cleaned up. Call it after the workers were killed, before they are reaped."""
        deadline = time.monotonic() + _CLEANUP_SECONDS
        for pid, pidfd in self._trackers:
            if not _wait(pid, pidfd, deadline):
                with contextlib.suppress(PermissionError):
                    _kill(pid, pidfd)

    def reap(self) -> None:
        """Reaps killed processes that became children of this one. Call it after the workers were reaped."""
        for _, pidfd in self._killed + self._trackers:
            if pidfd >= 0:
                with contextlib.suppress(ChildProcessError):  # the usual case: it is another process's child
                    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
                os.close(pidfd)
        self._killed.clear()
        self._trackers.clear()


def _wait(pid: int, pidfd: int, deadline: float) -> bool:
    """Waits for a process. Returns whether it ended before the deadline."""
    if pidfd >= 0:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    while _is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def tree_below(pid: int) -> list[int]:
    """The descendants of a live process."""
    found = _children(pid)
    for child in found:  # the list grows meanwhile
        found += _children(child)
    return found


def _children(pid: int) -> list[int]:
    """The children of a process, from proc(5) if the kernel has that file, else by searching all processes."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  children are listed by the thread that started them
        texts = [Path(f"/proc/{pid}/task/{task}/children").read_bytes() for task in tasks]
        return [int(child) for text in texts for child in text.split()]
    except OSError as error:
        if not is_refusal(error):
            raise
    return [child for child, parent in _parents() if parent == pid]


def _parents() -> Iterable[tuple[int, int]]:
    """Each process with its parent, from /proc, or by ps(1) without it (macOS)."""
    if sys.platform == "win32":
        return []
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        return [(int(pid), int(parent)) for pid, parent in map(str.split, listed.splitlines())]
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    return [(pid, int(fields[1])) for pid in pids if (fields := stat_fields(pid))]


def stat_fields(pid: int) -> list[str]:
    """The fields after the name in /proc/<pid>/stat: state, parent and more; empty if the process has ended."""
    return "".join(lines_of(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _is_alive(pid: int) -> bool:
    if Path("/proc/self/stat").exists():
        return stat_fields(pid)[:1] not in ([], ["Z"], ["X"])
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _command(pid: int) -> str:
    return " ".join(lines_of(f"/proc/{pid}/cmdline")).replace("\0", " ")
