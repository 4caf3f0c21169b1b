"""Turns a fork of the agent or of the fork server into a task's process."""

from __future__ import annotations

import os
import signal
from types import FrameType

from k8sflow.task import moments

_STDERR = 2


def become_task(stdout: int, stderr: int, *, outlives_sigterm: bool = False) -> None:
    """Gives this process a session, the default signals, and standard streams of its own.

    With the session it leads a process group, by which all that the task starts can be ended with it.

    Args:
        stdout: The descriptor that its output goes to.
        stderr: The descriptor that its errors go to.
        outlives_sigterm: Whether SIGTERM, where the step has no handler for it, does nothing.
    """
    moments.note("forked")
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if outlives_sigterm:
        outlive_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    null = os.open(os.devnull, os.O_RDONLY)
    for target, descriptor in enumerate((null, stdout, stderr)):
        os.dup2(descriptor, target)
    for descriptor in {null, stdout, stderr}:
        if descriptor > _STDERR:
            os.close(descriptor)


def outlive_sigterm() -> None:
    """Makes SIGTERM do nothing in this process; forks of it end by it as ever, and so do programs that it starts."""
    task = os.getpid()

    def handle(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != task:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handle)
