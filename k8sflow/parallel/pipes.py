"""The pipes between the parent and a forked worker."""

from __future__ import annotations

import fcntl
import os
import signal
from dataclasses import dataclass
from typing import Any

from .channels import READ_BYTES
from .forking import private_fds


@dataclass(frozen=True)
class PipeEnds:
    """The three pipes between the parent and a forked worker; what goes in at one end comes out at the other."""

    commands_out: int
    commands_in: int
    results_out: int
    results_in: int
    lifeline_out: int
    lifeline_in: int

    def close_workers(self) -> None:
        for fd in (self.commands_out, self.results_in, self.lifeline_out):
            os.close(fd)

    def close_parents(self) -> None:
        for fd in (self.commands_in, self.results_out, self.lifeline_in):
            private_fds.discard(fd)
            os.close(fd)


def open_pipes() -> PipeEnds:
    """Three new pipes.

    The lifeline has its owner, which is to be the worker, killed when its other end is closed: that one is the parent's
    alone (fcntl(2), F_SETSIG). PR_SET_PDEATHSIG would fire when the thread that forked ends, not its process.

    Raises:
        OSError: There are too many descriptors; none was left open.
    """
    fds: list[int] = []
    try:
        for _ in range(3):
            fds += os.pipe()
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    ends = PipeEnds(*fds)
    fcntl.fcntl(ends.lifeline_out, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(ends.lifeline_out, fcntl.F_SETFL, os.O_RDONLY | os.O_ASYNC)
    private_fds.update((ends.commands_in, ends.results_out, ends.lifeline_in))
    return ends


class Pipes:
    """The worker's channel to the parent."""

    def __init__(self, ends: PipeEnds) -> None:
        self._commands = ends.commands_out
        self._results = ends.results_in
        self._pid = os.getpid()

    def _check_owner(self) -> None:
        """Cuts off a child of the function that comes back from it: it is no worker, and the descriptors aren't its."""
        if os.getpid() != self._pid:
            raise EOFError

    def read_into(self, view: memoryview) -> None:
        self._check_owner()
        while view:
            count = os.readv(self._commands, [view[:READ_BYTES]])
            if count == 0:
                raise EOFError
            view = view[count:]

    def write(self, data: Any) -> None:
        self._check_owner()
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(self._results, view[:READ_BYTES]) :]
