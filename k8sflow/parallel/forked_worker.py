"""The life of a forked worker, and the pipes to its parent."""

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
from .deadlocks import raise_when_stuck
from .descendants import be_daemon, lead_group
from .executors import guard_pools, renew_executors
from .forking import flush_output, private_fds
from .limits import join_crowd
from .math_threads import ONE_THREAD_EACH
from .process_tree import adopt_orphans
from .queues import renew_shared_objects
from .signals import HeldSignals
from .worker import Job, serve


def forked_process(
    job: Job,
    pipes: Pipes,
    crowd: int,
    hold_openmp: Callable[[], object] | None,
    executors: list[Any],
    held: HeldSignals,
) -> NoReturn:
    """The whole life of a forked worker. It never returns into the caller's frames.

    What it begins with was made before the fork: each page that it touches anew must be copied.
    """
    try:
        gc.freeze()  # the collector leaves inherited objects alone: marking them would copy their pages
        lead_group()
        be_daemon()
        adopt_orphans()
        renew_executors(executors)
        guard_pools()
        renew_shared_objects()
        join_crowd(crowd)
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
        pass  # the parent doesn't listen any more
    except BaseException:  # noqa: BLE001  the border of this process; nothing may reach the frames of the caller
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(1)


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
        """Makes them this process's own, and has the kernel send it the lifeline's signal, see `open_pipes`."""
        self._pid = os.getpid()
        private_fds.update((self._commands, self._results, self._lifeline))
        fcntl.fcntl(self._lifeline, fcntl.F_SETOWN, -self._pid if os.getpgrp() == self._pid else self._pid)
        if readable_within(self._lifeline, 0):
            os._exit(1)  # the parent died before we asked

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
