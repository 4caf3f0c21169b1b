"""The main function of a forked worker, and the pipes to its parent."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from .channels import READ_BYTES, readable_within
from .child_processes import lead_process_group, mark_as_daemon
from .deadlocks import raise_when_stuck
from .executors import guard_pools, renew_executors
from .forking import flush_output, private_fds
from .limits import set_core_sharers
from .math_threads import ONE_THREAD_EACH
from .process_tree import adopt_orphans
from .queues import renew_shared_objects
from .signals import HeldSignals
from .worker import Job, serve


def forked_process(
    job: Job,
    pipes: Pipes,
    core_sharers: int,
    hold_openmp: Callable[[], object] | None,
    executors: list[Any],
    held: HeldSignals,
) -> NoReturn:
    """The main function of a forked worker. It never returns into the caller's frames.

    Its arguments were created before the fork, since each page that the worker writes to must be copied.
    """
    try:
        gc.freeze()  # the collector leaves inherited objects alone: marking them would copy their pages
        lead_process_group()
        mark_as_daemon()
        adopt_orphans()
        renew_executors(executors)
        guard_pools()
        renew_shared_objects()
        set_core_sharers(core_sharers)
        pipes.take()
        signal.set_wakeup_fd(-1)
        held.restore_for_worker()
        raise_when_stuck()
        if hold_openmp:
            hold_openmp()
        for name, one in ONE_THREAD_EACH.items():
            os.environ[name] = one  # for libraries that the function loads, and programs that it starts
        serve(job)
    except (EOFError, BrokenPipeError):
        pass  # the parent has stopped listening
    except BaseException:  # noqa: BLE001  the boundary of this process; nothing may reach the frames of the caller
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(1)


@dataclass(frozen=True)
class PipeEnds:
    """The ends of the three pipes between the parent and a forked worker."""

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

    The kernel kills the owner of the lifeline, the worker, when the other end is closed, which only the parent holds
    (fcntl(2), F_SETSIG). PR_SET_PDEATHSIG would fire when the thread that forked ends, not its process.

    Raises:
        OSError: Too many descriptors are open; those opened here were closed again.
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
    for fd in (ends.commands_in, ends.results_out):
        os.set_blocking(fd, False)
    private_fds.update((ends.commands_in, ends.results_out, ends.lifeline_in))
    return ends


class Pipes:
    """The worker's channel to the parent."""

    def __init__(self, ends: PipeEnds) -> None:
        self._commands = ends.commands_out
        self._results = ends.results_in
        self._lifeline = ends.lifeline_out
        self._pid = 0

    def take(self) -> None:
        """Takes ownership of the pipes: the kernel sends this process the lifeline's signal, see `open_pipes`."""
        self._pid = os.getpid()
        private_fds.update((self._commands, self._results, self._lifeline))
        fcntl.fcntl(self._lifeline, fcntl.F_SETOWN, -self._pid if os.getpgrp() == self._pid else self._pid)
        if readable_within(self._lifeline, 0):
            os._exit(1)  # the parent died before this process took ownership

    def _check_owner(self) -> None:
        """Stops a process that the function forked and that returned from it: it is not a worker."""
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
