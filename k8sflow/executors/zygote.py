"""A process that forks one process per task, and the driver's end of the connection to it.

The driver sends a task with the file descriptors that the task writes to; the server answers with the task's pid, and
reports how each one ended.

Messages are sent over a stream socket, each a length of 4 bytes and JSON. Requests are answered one at a time, so the
descriptors (SCM_RIGHTS, unix(7)) always belong to the request that they come with.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from k8sflow.errors import RunError
from k8sflow.task import streams
from k8sflow.task.host.become import become_task
from k8sflow.task.host.verdict import signal_name

_LENGTH = struct.Struct("!I")
_FDS = 3
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
OUR_SIGNALS = frozenset({signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
# How many words of 32 bits a task's numpy generator is seeded with.
_SEED_WORDS = 8
_END_SECONDS = 1.0
_PAUSE_SECONDS = 0.005

TaskMain = Callable[[str, int], int]
# Starts a process with the second of two connected sockets, in which the first one has to be closed; returns its pid.
Start = Callable[[socket.socket, socket.socket], int]


@dataclass(frozen=True)
class Exit:
    """How a task's process ended: ``status`` as of ``os.waitpid``."""

    pid: int
    status: int


class ServerDied(RunError):  # noqa: N818  says what happened
    """A fork server ended before it was ready for the first task."""


class Zygote:
    """The driver's end.

    Args:
        start: Starts the process that starts tasks, and returns its pid.

    Raises:
        RunError: It can't be started.
    """

    def __init__(self, start: Start) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.settimeout(None)  # whatever the flow has made the default
            os.set_blocking(end.fileno(), True)  # also where a library has replaced the sockets, as gevent does
        streams.flush()
        try:
            self.pid = start(ours, theirs)
        except OSError as error:
            raise no_process("the tasks' parent", error) from error
        theirs.close()
        self.socket = ours
        self._exits: list[Exit] = []
        self._is_reaped = False
        self._left_out: dict[str, str] | None = None

    def spawn(self, task: str, stdout: int, stderr: int, result: int) -> int:
        """Starts a task's process with these descriptors, and returns its pid.

        Raises:
            ServerDied: The server died before it was ready.
            RunError: It died later, or no process can be made.
        """
        try:
            _send(self.socket, {"task": task}, (stdout, stderr, result))
            while True:
                message = self._receive()
                if "pid" in message:
                    return int(message["pid"])
                if "error" in message:
                    raise no_process("a task", message["error"])
                self._take(message)
        except OSError as error:
            raise self._gone(error) from error

    def exits(self) -> list[Exit]:
        """The exits that were reported; waits for one where none was seen on the way.

        Raises:
            ServerDied: The server died before it was ready.
            RunError: It died later.
        """
        if not self._exits:
            try:
                self._take(self._receive())
            except OSError as error:
                raise self._gone(error) from error
        found, self._exits = self._exits, []
        return found

    def _take(self, message: dict[str, Any]) -> None:
        if "left_out" in message:
            self._left_out = message["left_out"]
        else:
            self._exits.append(_exit_of(message))

    @property
    def left_out(self) -> dict[str, str] | None:
        """The libraries that each task imports by itself, and why; None where the server has not started yet."""
        return self._left_out

    @property
    def has_exits(self) -> bool:
        """Whether exits were seen that nobody has asked for."""
        return bool(self._exits)

    def kill_unless_ready(self) -> None:
        """Ends a server that still imports libraries, so that nobody has to wait for that."""
        if self._left_out is None and not self._is_reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self, *, spare_orphans: bool = False) -> None:
        """Ends the zygote, and with it every task that still runs.

        Args:
            spare_orphans: Whether processes that tasks have left behind may go on.
        """
        if spare_orphans:
            with contextlib.suppress(OSError):  # it is gone already
                _send(self.socket, {"spare_orphans": True})
        self.socket.close()
        if self._is_reaped:
            return
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)  # a step may have stopped its parent
            os.waitpid(self.pid, 0)

    def _gone(self, error: OSError) -> RunError:
        if self._left_out is not None:
            return _gone(error)
        return ServerDied(
            f"the process that imports libraries ahead of all tasks {self._end()} while it did so.",
            cause="Memory was short, or a library ended the process when it was imported.",
            advice="`dmesg` shows what the kernel has killed.",
        )

    def _end(self) -> str:
        """Words for how the server ended; one that has only closed the connection is ended here."""
        deadline = time.monotonic() + _END_SECONDS
        status = None
        with contextlib.suppress(ChildProcessError):  # the flow ignores SIGCHLD, so the kernel keeps no status
            while time.monotonic() < deadline:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    break
                time.sleep(_PAUSE_SECONDS)  # its files are closed a moment before it can be waited for
            else:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                status = None
        self._is_reaped = True
        if status is None:
            return "closed its connection"
        if os.WIFSIGNALED(status):
            return f"was killed by {signal_name(os.WTERMSIG(status))}"
        return f"ended with exit code {os.WEXITSTATUS(status)}"

    def _receive(self) -> dict[str, Any]:
        message, fds = _receive(self.socket)
        assert not fds
        if message is None:
            raise ConnectionResetError("it closed the connection")
        return message


def no_process(what: str, why: object) -> RunError:
    """The error where the system refuses a process or a thread, which counts as one."""
    return RunError(
        f"no process can be made for {what}: {why}.",
        advice="Lower --max-workers, or raise the limit of processes (ulimit -u).",
    )


def _gone(error: OSError) -> RunError:
    return RunError(
        "the process that starts tasks is gone.",
        cause=f"A step killed it (it is every task's parent), or the kernel did for want of memory ({error}).",
        advice="A step must not signal its parent; `dmesg` tells what the kernel has killed.",
    )


class Server:
    """The zygote's end: forks, waits, reports.

    It outlives the driver for a moment, whatever killed that: the closed connection, or the kernel, tells it to end the
    tasks and what they have started, daemons too, whose parent it becomes. No signal but SIGKILL ends it before that: a
    step may send one to its parent.

    Args:
        connection: The socket to the driver.
        task_main: The life of a task's process; None where it is only to say what it leaves out.
        driver: The driver's process id.
        left_out: The libraries that each task imports by itself, and why.
    """

    def __init__(
        self, connection: socket.socket, task_main: TaskMain | None, driver: int, left_out: Mapping[str, str]
    ) -> None:
        self._left_out = left_out
        self._connection = connection
        self._task_main = task_main
        self._driver = driver
        self._pid = os.getpid()
        self._children: set[int] = set()
        self._spares_orphans = False

    def serve(self) -> int:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        wakeup, woken = socket.socketpair()
        for end in (wakeup, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OUR_SIGNALS)  # the flow may have blocked them
        _ask_for_signal(signal.SIGTERM)  # where a process that the flow has started has the driver's socket open too
        _adopt_orphans()
        gc.collect()
        gc.freeze()  # objects that exist now are never looked at again, so their pages stay shared
        try:
            with contextlib.suppress(OSError):
                _send(self._connection, {"left_out": dict(self._left_out)})
            if self._task_main is not None:
                self._loop(woken)
        finally:
            self._kill_children()
            if not self._spares_orphans:
                kill_children()
            signal.set_wakeup_fd(-1)
            for end in (wakeup, woken, self._connection):
                end.close()
        return 0

    def _loop(self, woken: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while os.getppid() == self._driver:
                ready = {key.fileobj for key, _ in selector.select()}
                if woken in ready:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    self._report_exits()
                if self._connection in ready and not self._serve_one():
                    return

    def _serve_one(self) -> bool:
        """Starts a task; False when the driver is gone."""
        try:
            message, fds = _receive(self._connection)
            if message is None:
                return False
            if "spare_orphans" in message:
                self._spares_orphans = True
                return False
            _send(self._connection, self._fork(message["task"], fds))
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
        become_task(stdout, stderr)
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
            if pid not in self._children:  # one that a task has left behind
                continue
            self._children.remove(pid)
            with contextlib.suppress(OSError):
                _send(self._connection, {"exited": pid, "status": status})

    def _kill_children(self) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def kill_children() -> None:
    """Ends what this process, or what it has adopted, has started; and whatever that leaves behind in turn."""
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
    """The children of a process that has one thread, as far as the kernel tells them (proc(5))."""
    with contextlib.suppress(OSError):
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return set()


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent dies, or has died."""
    _ask_for_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _adopt_orphans() -> None:
    """Asks the kernel for what descendants leave behind when they end, which init would get (prctl(2), Linux only)."""
    if sys.platform == "linux":
        _prctl()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _ask_for_signal(number: signal.Signals) -> None:
    """Asks the kernel to send this process a signal when its parent dies (prctl(2), Linux only)."""
    if sys.platform == "linux":
        _prctl()(_PR_SET_PDEATHSIG, number, 0, 0, 0)


@functools.cache
def _prctl() -> Callable[..., int]:
    """The function of the C library: looked up once in the zygote, which each task would pay for again."""
    return ctypes.CDLL(None).prctl


def _exit_after(main: Callable[[], int]) -> NoReturn:
    """Ends a forked process without unwinding the frames of the process that it was forked from."""
    code = 1
    try:
        code = main()
    except BaseException:  # noqa: BLE001  nothing may pass into the frames below, which belong to the parent
        sys.excepthook(*sys.exc_info())
    finally:
        streams.flush()
        os._exit(code)


def _reseed_numpy() -> None:
    """Gives the task a numpy generator of its own, as a new interpreter has; Python's own does so by itself."""
    module = sys.modules.get("numpy.random")
    if module is not None:
        module.seed(list(memoryview(os.urandom(4 * _SEED_WORDS)).cast("I")))


def _send(connection: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    data = json.dumps(message).encode()
    # The descriptors travel with the length, so that one recvmsg of 4 bytes takes exactly them.
    if fds:
        socket.send_fds(connection, [_LENGTH.pack(len(data))], fds)
        connection.sendall(data)
    else:
        connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    header, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, _FDS)
    if not header:
        return None, []
    header += _exactly(connection, _LENGTH.size - len(header))
    message: dict[str, Any] = json.loads(_exactly(connection, _LENGTH.unpack(header)[0]))
    return message, fds


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the other end is gone in the middle of a message")
        data += piece
    return data


def _exit_of(message: dict[str, Any]) -> Exit:
    return Exit(int(message["exited"]), int(message["status"]))
