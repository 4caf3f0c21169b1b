"""The life of a forked worker."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import traceback
from collections.abc import Callable
from typing import NoReturn

from .channels import readable_within
from .cores import join_crowd
from .forking import private_fds
from .math_threads import ONE_THREAD_EACH
from .pipes import PipeEnds, Pipes
from .signals import HeldSignals, leave_it_to_the_parent
from .streams import flush_output
from .worker import Job, serve


def forked_process(
    job: Job,
    workers: int,
    ends: PipeEnds,
    hold_openmp: Callable[[], object] | None,
    held: HeldSignals,
) -> NoReturn:
    """The whole life of a forked worker. It never returns into the caller's frames."""
    try:
        gc.freeze()  # the collector leaves inherited objects alone: marking them would copy their pages
        join_crowd(workers)
        private_fds.update((ends.commands_out, ends.results_in, ends.lifeline_out))
        _die_with_parent(ends.lifeline_out)
        signal.set_wakeup_fd(-1)
        held.restore_handlers()
        signal.signal(signal.SIGINT, leave_it_to_the_parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        held.restore_mask()
        if hold_openmp:
            hold_openmp()
        os.environ.update(ONE_THREAD_EACH)  # for libraries that the function loads, and programs that it starts
        serve(job, Pipes(ends))
    except (EOFError, BrokenPipeError):
        pass  # the parent doesn't listen any more
    except BaseException:  # noqa: BLE001  the border of this process; nothing may reach the frames of the caller
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(1)


def _die_with_parent(lifeline: int) -> None:
    """Has the kernel send this process the lifeline's signal, see `open_pipes`."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    if readable_within(lifeline, 0):
        os._exit(1)  # it died before we asked
