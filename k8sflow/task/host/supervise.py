"""A task's process seen from the outside: its output, its deadline and how it ended.

The agent in a pod supervises one; the local executor supervises several in one selector.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import selectors
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from k8sflow.flow.decorators.policy import TimeLimit
from k8sflow.parallel.limits import out_of_memory_kills
from k8sflow.storage.run_store import RunStore
from k8sflow.task.conventions import TIME_IS_OVER
from k8sflow.task.failure import timed_out
from k8sflow.task.host.descendants import Process, descendants
from k8sflow.task.host.framing import OutputStream
from k8sflow.task.host.oom import Kills, kills_since
from k8sflow.task.host.verdict import reported, verdict
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result

Stream = Literal["stdout", "stderr", "result"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr", "result")
# How long a process has after SIGTERM before it is killed.
TERM_SECONDS = 3.0
_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class NewPipes:
    """The pipes for a process that is about to start, and the count of kills for want of memory before it."""

    read_ends: Mapping[Stream, int]
    write_ends: Mapping[Stream, int]
    kills_before: int


@contextmanager
def new_pipes() -> Iterator[NewPipes]:
    """Makes the pipes for a process, which starts in the block; after it the write ends are closed here."""
    kills_before = out_of_memory_kills()
    pipes = {stream: os.pipe() for stream in STREAMS}
    reads, writes = ({stream: ends[i] for stream, ends in pipes.items()} for i in (0, 1))
    try:
        yield NewPipes(reads, writes, kills_before)
    except BaseException:
        for fd in reads.values():
            os.close(fd)
        raise
    finally:
        for fd in writes.values():
            os.close(fd)


@dataclass(frozen=True)
class ProcessEnd:
    """The end of a task's process.

    Args:
        result: The verdict.
        known: The result that the process reported, or that the store has; None where there is neither.
        kills: The kills for want of memory while it ran.
    """

    result: TaskResult
    known: TaskResult | None
    kills: Kills


class TaskProcess:
    """A running process, the leader of its group.

    Args:
        task: The task that it runs.
        pid: Its id.
        pipes: What it writes to.
        selector: Gets each pipe, with the process and the stream's name as data.
        on_output: Takes a piece of output.
        limit: How long it may take; None for any time.
    """

    def __init__(
        self,
        task: TaskSpec,
        pid: int,
        pipes: NewPipes,
        selector: selectors.BaseSelector,
        on_output: Callable[[OutputStream, bytes], None],
        limit: TimeLimit | None,
    ) -> None:
        self.task = task
        self.pid = pid
        self.ended_for: TaskResult | None = None  # the reason for which the host ended it
        self.deadline = math.inf if limit is None else time.monotonic() + limit.seconds
        self._limit = limit
        self._below: list[Process] = []
        self._kills_before = pipes.kills_before
        self._result = bytearray()
        self._on_output = on_output
        self._selector = selector
        self._pipes = dict(pipes.read_ends)
        for stream, fd in self._pipes.items():
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ, (self, stream))

    @property
    def said(self) -> bytes:
        """The bytes that it has written to its result so far."""
        return bytes(self._result)

    def kills(self, explained: int | None = None) -> Kills:
        """The kills for want of memory since it started; ``explained`` as in ``Kills``."""
        return kills_since(self._kills_before, explained)

    def read(self, stream: Stream, most: int = _READ_BYTES) -> int:
        """Takes bytes that are in a pipe, and returns how many."""
        fd = self._pipes.get(stream)
        if fd is None:
            return 0
        try:
            data = os.read(fd, most)
        except BlockingIOError:
            return 0
        if not data:
            self._close(stream)
        elif stream == "result":
            self._result += data
        else:
            self._on_output(stream, data)
        return len(data)

    def drain(self) -> None:
        """Takes the bytes that are in the pipes now: a leftover child may write to them forever."""
        for stream, fd in list(self._pipes.items()):
            remaining = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
            while remaining > 0 and (taken := self.read(stream, remaining)):
                remaining -= taken

    def close(self) -> None:
        """Closes the pipes."""
        for stream in list(self._pipes):
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        fd = self._pipes.pop(stream)
        self._selector.unregister(fd)
        os.close(fd)

    def end_overdue(self) -> None:
        """Ends it when its time is over: by an exception in its step, then by SIGKILL to everything that it started."""
        if time.monotonic() < self.deadline:
            return
        if self.ended_for is None and self._limit is not None and self._limit.grace_seconds:
            self.ended_for = timed_out(self._limit.seconds)
            self.deadline = time.monotonic() + self._limit.grace_seconds
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, TIME_IS_OVER)
        else:
            reason = self.ended_for or timed_out(self._limit.seconds if self._limit is not None else math.inf)
            self.end(reason, signal.SIGKILL)

    def end(self, reason: TaskResult, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends its group a signal, and SIGKILL a few seconds later if it is still there."""
        self.ended_for = reason
        self.deadline = time.monotonic() + TERM_SECONDS
        self._below += descendants(self.pid)  # after its death, nobody knows what it had started in another session
        self.signal(number)

    def end_within(self, seconds: float) -> None:
        """Sends it SIGTERM, which it outlives, and SIGKILL to its group when so many seconds are over."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Sends its group a signal."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # it has no group of its own yet, or is dead
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)
        except PermissionError:  # all of them belong to another user now
            pass

    def kill_leftovers(self) -> None:
        """Kills the rest of its group when it has ended, and what was below it when the host ended it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in self._below:
            process.kill()

    def conclude(self, status: int, run_store: RunStore, file: str, kills_explained: int | None = None) -> ProcessEnd:
        """Decides how it ended.

        Args:
            status: Its exit status, as of ``os.waitpid``.
            run_store: The run's records, asked for a commit where it reported no result.
            file: The flow's file.
            kills_explained: As in ``Kills``.

        Raises:
            StorageError: The store refuses.
        """
        said = reported(self._result, status)
        committed = None if said is not None else committed_result(run_store, self.task)
        kills = self.kills(kills_explained)
        importing = "" if self._result else file
        return ProcessEnd(verdict(status, said, committed, self.ended_for, kills, importing), said or committed, kills)
