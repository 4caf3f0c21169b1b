"""The driver's end of the connection to a fork server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k8sflow.errors import RunError
from k8sflow.executors.fork_server.protocol import receive, send
from k8sflow.task import streams
from k8sflow.task.host.verdict import signal_name

_END_SECONDS = 1.0
_PAUSE_SECONDS = 0.005

# Starts a process with the second of two connected sockets, in which the first one has to be closed; returns its pid.
Start = Callable[[socket.socket, socket.socket], int]


@dataclass(frozen=True)
class Exit:
    """How a task's process ended: ``status`` as of ``os.waitpid``."""

    pid: int
    status: int


class ServerDied(RunError):  # noqa: N818  says what happened
    """A fork server ended before it was ready for the first task."""


class ForkServer:
    """The driver's end of the connection to a process that forks one process per task.

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
            send(self.socket, {"task": task}, (stdout, stderr, result))
            while True:
                message = self._receive()
                if "pid" in message:
                    return int(message["pid"])
                if "error" in message:
                    raise no_process("a task", message["error"])
                self._take(message)
        except OSError as error:
            raise self._died(error) from error

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
                raise self._died(error) from error
        found, self._exits = self._exits, []
        return found

    def _take(self, message: dict[str, Any]) -> None:
        if "left_out" in message:
            self._left_out = message["left_out"]
        else:
            self._exits.append(Exit(int(message["exited"]), int(message["status"])))

    @property
    def left_out(self) -> dict[str, str] | None:
        """The libraries that each task imports by itself, and why; None where the server has not started yet."""
        return self._left_out

    @property
    def has_exits(self) -> bool:
        """Whether exits were reported that ``exits`` has not returned yet."""
        return bool(self._exits)

    def kill_unless_ready(self) -> None:
        """Ends a server that still imports libraries, so that nobody has to wait for that."""
        if self._left_out is None and not self._is_reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self, *, spare_orphans: bool = False) -> None:
        """Ends the server, and with it every task that still runs.

        Args:
            spare_orphans: Whether leftover processes of tasks may continue.
        """
        if spare_orphans:
            with contextlib.suppress(OSError):  # it is dead already
                send(self.socket, {"spare_orphans": True})
        self.socket.close()
        if self._is_reaped:
            return
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)  # a step may have stopped its parent
            os.waitpid(self.pid, 0)

    def _died(self, error: OSError) -> RunError:
        if self._left_out is not None:
            return _died(error)
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
        message, fds = receive(self.socket)
        assert not fds
        if message is None:
            raise ConnectionResetError("it closed the connection")
        return message


def no_process(what: str, why: object) -> RunError:
    """The error where the system refuses a process or a thread, which counts as one."""
    return RunError(
        f"no process can be started for {what}: {why}.",
        advice="Lower --max-workers, or raise the limit of processes (ulimit -u).",
    )


def _died(error: OSError) -> RunError:
    return RunError(
        "the process that starts tasks died.",
        cause=f"A step killed it (it is every task's parent), or the kernel did for want of memory ({error}).",
        advice="A step must not signal its parent; `dmesg` shows what the kernel has killed.",
    )
