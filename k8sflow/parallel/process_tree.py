"""The processes below a worker, also those in sessions of their own: found, and ended with the call."""

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
_TRACKER = "resource_tracker"  # of multiprocessing and of loky: it removes what others leave in /dev/shm
_DEATH_SECONDS = 2.0  # so long a killed process may take to end
_CLEANUP_SECONDS = 5.0  # ... and a tracker to clean up
_ROUNDS = 100  # looks at what a worker has started: what is killed leaves its own children to the worker


def _open_pidfd(pid: int) -> int:
    """A descriptor that tells of the process's end; -1 where there is none: not Linux, an old kernel, seccomp.

    Raises:
        ProcessLookupError: It has ended and was waited for.
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
    """Kills a process: by its descriptor where there is one, for the pid may be another process's by now."""
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
    """Looks up what `adopt_orphans` calls: in the parent, for it takes milliseconds where ctypes isn't loaded yet."""
    _adopter()


def adopt_orphans() -> None:
    """Makes this process the parent of what its descendants leave behind, prctl(2): it stays below the worker."""
    if (adopter := _adopter()) is not None:
        adopter()


class ProcessTree:
    """The processes below the workers of a call; no others are looked at."""

    def __init__(self) -> None:
        self._killed: list[tuple[int, int]] = []  # pid, pidfd
        self._trackers: list[tuple[int, int]] = []

    def kill_below(self, worker: int) -> None:
        """Kills what a living worker has started, but for trackers, which end when nobody else is left."""
        if not _children(worker):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)  # it shall start no more
        for _ in range(_ROUNDS):
            if not self._kill_tree_once(worker):
                break

    def _kill_tree_once(self, worker: int) -> bool:
        known = {pid for pid, _ in self._trackers + self._killed}
        killed = []
        for pid in _tree_below(worker):
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
        """To be called when the workers have been killed, and before they are reaped."""
        deadline = time.monotonic() + _CLEANUP_SECONDS
        for pid, pidfd in self._trackers:
            if not _wait(pid, pidfd, deadline):
                with contextlib.suppress(PermissionError):
                    _kill(pid, pidfd)

    def reap(self) -> None:
        """To be called when the workers have been reaped: takes what the kernel has made this process's children."""
        for _, pidfd in self._killed + self._trackers:
            if pidfd >= 0:
                with contextlib.suppress(ChildProcessError):  # the usual case: another process is to reap it
                    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
                os.close(pidfd)
        self._killed.clear()
        self._trackers.clear()


def _wait(pid: int, pidfd: int, deadline: float) -> bool:
    """Whether the process ends until then."""
    if pidfd >= 0:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    while _is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _tree_below(pid: int) -> list[int]:
    found = _children(pid)
    for child in found:  # it grows meanwhile
        found += _children(child)
    return found


def _children(pid: int) -> list[int]:
    """By proc(5) where the kernel has that file, else among all processes."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  each thread has the children that it started
        texts = [Path(f"/proc/{pid}/task/{task}/children").read_bytes() for task in tasks]
        return [int(child) for text in texts for child in text.split()]
    except OSError as error:
        if not is_refusal(error):
            raise
    return [child for child, parent in _parents() if parent == pid]


def _parents() -> Iterable[tuple[int, int]]:
    """Each process with its parent: of /proc, and by ps(1) where there is none (macOS)."""
    if sys.platform == "win32":
        return []
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        return [(int(pid), int(parent)) for pid, parent in map(str.split, listed.splitlines())]
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    return [(pid, int(fields[1])) for pid in pids if (fields := _stat(pid))]


def _stat(pid: int) -> list[str]:
    """What follows the name in /proc/<pid>/stat: the state, the parent's pid and more; empty if it is gone."""
    return "".join(lines_of(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _is_alive(pid: int) -> bool:
    if Path("/proc/self/stat").exists():
        return _stat(pid)[:1] not in ([], ["Z"], ["X"])
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _command(pid: int) -> str:
    return " ".join(lines_of(f"/proc/{pid}/cmdline")).replace("\0", " ")
