"""The verdict on a task's process that has ended: one pure table, for the agent in a pod and for the local executor."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from k8sflow.task.failure import EXIT_ADVICE
from k8sflow.task.host.oom import Kills, out_of_memory
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult, failed

_HINTS = {
    "SIGKILL": "Another process sent it, or the kernel's out-of-memory killer did, where no cgroup counts its kills: "
    "see `dmesg`.",
    "SIGSEGV": "Native code crashed, or recursed too deep: run the step with PYTHONFAULTHANDLER=1 to see where.",
    "SIGABRT": "Native code aborted: its last lines of output say why.",
}


def verdict(
    status: int,
    said: TaskResult | None,
    committed: TaskResult | None,
    ended_for: TaskResult | None,
    kills: Kills,
    importing: str = "",
) -> TaskResult:
    """How the execution ended, by the first line of this table that applies.

    | the task's own result, else its commit | ended by its host | verdict                       |
    |----------------------------------------|-------------------|-------------------------------|
    | anything but a user error              | for any reason    | that result                   |
    | none, or a user error                  | cancelled         | cancelled                     |
    | none                                   | timed out         | timed out                     |
    | none, or a user error                  | otherwise         | out of memory, where a kill   |
    |                                        |                   | explains it; else that error, |
    |                                        |                   | or how the process died       |

    Args:
        status: The process's exit status, as of ``os.waitpid``.
        said: The result that the process reported (``reported``).
        committed: The result in the store; read only where the process reported none.
        ended_for: Why its host ended it: it took too long, or was cancelled.
        kills: The kernel's kills for want of memory.
        importing: The flow's file, where the process was still importing it.
    """
    found = said or committed
    if found is not None and found.outcome is not Outcome.USER_ERROR:
        return found
    if ended_for is not None and ended_for.outcome is Outcome.CANCELLED:
        # Its children got the signal too, so an exception that followed is not a fault of its code.
        if found is None:
            return ended_for
        return replace(ended_for, failure=replace(ended_for.explained, detail=found.explained.summary))
    if found is None and ended_for is not None:
        return ended_for
    found = found or death(status, importing)
    return out_of_memory(found.explained, kills) if kills.explain(was_killed=_was_killed(status)) else found


def reported(text: bytes | bytearray, status: int) -> TaskResult | None:
    """The result that a process reported, or None where it was killed or wrote nothing readable."""
    if os.WIFSIGNALED(status) or not text.strip():
        return None
    try:
        return TaskResult.from_json(bytes(text).decode())
    except ValueError:
        return None


def death(status: int, importing: str = "") -> TaskResult:
    """The result of a process that ended, with this status, before its step did; ``importing`` as in ``verdict``."""
    during = f"while it imported {importing}" if importing else "before its step was finished"
    if os.WIFSIGNALED(status):
        name = signal_name(os.WTERMSIG(status))
        summary = f"the task's process was killed by {name}{f' {during}' if importing else ''}"
        return failed(Outcome.USER_ERROR, summary, resolution=_HINTS.get(name, ""))
    advice = (
        f"Something called os._exit() before the step began. {EXIT_ADVICE}"
        if importing
        else "Something called os._exit(), or native code ended the process."
    )
    return failed(
        Outcome.USER_ERROR,
        f"the task's process ended with exit code {os.WEXITSTATUS(status)} {during}",
        resolution=advice,
    )


def signal_name(number: int) -> str:
    """A signal's name as in ``kill -l``."""
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def _was_killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
