"""The fork server: a process that forks one process per task."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from k8sflow.executors.fork_server.protocol import receive, send
from k8sflow.task import streams
from k8sflow.task.host.become import become_task
from k8sflow.task.host.wakeup import Wakeup

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HANDLED_SIGNALS = frozenset({signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
# How many words of 32 bits a task's numpy generator is seeded with.
_SEED_WORDS = 8

TaskMain = Callable[[str, int], int]


class Server:
    """The fork server's end: forks, waits, reports.

    It outlives the driver for a moment: when the connection closes, or the kernel signals the driver's death, it ends
    the tasks and everything that they have started, also daemons, whose parent it becomes. Only SIGKILL ends it before
    that: a step may send a signal to its parent.

    Args:
        connection: The socket to the driver.
        task_main: Runs a task in its process; None where the server only reports the libraries that it leaves out.
        driver: The driver's process id.
        left_out: The libraries that each task imports by itself, and why.
        outlives_sigterm: Whether SIGTERM does nothing in a task that has no handler for it.
    """

    def __init__(
        self,
        connection: socket.socket,
        task_main: TaskMain | None,
        driver: int,
        left_out: Mapping[str, str],
        *,
        outlives_sigterm: bool = False,
    ) -> None:
        self._outlives_sigterm = outlives_sigterm
        self._left_out = left_out
        self._connection = connection
        self._task_main = task_main
        self._driver = driver
        self._pid = os.getpid()
        self._children: set[int] = set()
        self._spares_orphans = False

    def serve(self) -> int:
        """Serves until the driver closes the connection or dies; returns the exit code."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        wakeup = Wakeup()
        wakeup.wake_on_signals()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED_SIGNALS)  # the flow may have blocked them
        _ask_for_signal(signal.SIGTERM)  # where a process that the flow has started has the driver's socket open too
        _adopt_orphans()
        gc.collect()
        gc.freeze()  # objects that exist now are never looked at again, so their pages stay shared
        try:
            with contextlib.suppress(OSError):
                send(self._connection, {"left_out": dict(self._left_out)})
            if self._task_main is not None:
                self._loop(wakeup)
        finally:
            self._kill_children()
            if not self._spares_orphans:
                kill_children()
            signal.set_wakeup_fd(-1)
            wakeup.close()
            self._connection.close()
        return 0

    def _loop(self, wakeup: Wakeup) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(wakeup, selectors.EVENT_READ)
            while os.getppid() == self._driver:
                ready = {key.fileobj for key, _ in selector.select()}
                if wakeup in ready:
                    wakeup.clear()
                    self._report_exits()
                if self._connection in ready and not self._serve_one():
                    return

    def _serve_one(self) -> bool:
        """Starts a task; False when the driver is dead."""
        try:
            message, fds = receive(self._connection)
            if message is None:
                return False
            if "spare_orphans" in message:
                self._spares_orphans = True
                return False
            send(self._connection, self._fork(message["task"], fds))
        except OSError:
            return False
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, task: str, fds: list[int]) -> dict[str, Any]:
        try:
            pid = os.fork()
        except OSError as error:
            return {"error": str(error)}
        if pid == 0:
            _exit_after(lambda: self._become_task(task, fds))
        self._children.add(pid)
        return {"pid": pid}

    def _become_task(self, task: str, fds: list[int]) -> int:
        self._connection.close()
        stdout, stderr, result = fds
        become_task(stdout, stderr, outlives_sigterm=self._outlives_sigterm)
        end_with_parent(self._pid)
        _reseed_numpy()
        assert self._task_main is not None
        code = self._task_main(task, result)
        atexit._run_exitfuncs()  # noqa: SLF001
        return code

    def _report_exits(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._children:  # a leftover process of a task
                continue
            self._children.remove(pid)
            with contextlib.suppress(OSError):
                send(self._connection, {"exited": pid, "status": status})

    def _kill_children(self) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def kill_children() -> None:
    """Ends the children of this process, also adopted ones, and the leftover processes of those in turn."""
    spared: set[int] = set()  # those of another user, as after sudo
    while found := _children_of(os.getpid()) - spared:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except PermissionError:
                spared.add(pid)
            except (ProcessLookupError, ChildProcessError):
                continue


def _children_of(pid: int) -> set[int]:
    """The children of a process that has one thread, as the kernel lists them (proc(5))."""
    with contextlib.suppress(OSError):
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return set()


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent dies, or has died."""
    _ask_for_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _adopt_orphans() -> None:
    """Becomes the parent of orphaned descendants in place of init (prctl(2), Linux only)."""
    if sys.platform == "linux":
        _prctl()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _ask_for_signal(number: signal.Signals) -> None:
    """Asks the kernel to send this process a signal when its parent dies (prctl(2), Linux only)."""
    if sys.platform == "linux":
        _prctl()(_PR_SET_PDEATHSIG, number, 0, 0, 0)


@functools.cache
def _prctl() -> Callable[..., int]:
    """The function of the C library: looked up once in the server, and not again in each task."""
    return ctypes.CDLL(None).prctl


def _exit_after(main: Callable[[], int]) -> NoReturn:
    """Ends a forked process without unwinding the frames of the process that it was forked from."""
    code = 1
    try:
        code = main()
    except BaseException:  # noqa: BLE001  nothing may reach the frames below, which belong to the parent
        sys.excepthook(*sys.exc_info())
    finally:
        streams.flush()
        os._exit(code)


def _reseed_numpy() -> None:
    """Gives the task a numpy generator of its own, as a new interpreter has; Python's own does so by itself."""
    module = sys.modules.get("numpy.random")
    if module is not None:
        module.seed(list(memoryview(os.urandom(4 * _SEED_WORDS)).cast("I")))
