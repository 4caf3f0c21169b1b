"""What a person is told about a task's process that ended without a word."""

from __future__ import annotations

import os
import signal

from k8sflow.errors import TimeoutException
from k8sflow.task.outcome import Diagnosis, Outcome, name_of
from k8sflow.task.result import TaskResult

_HINTS = {
    "SIGKILL": "Somebody sent it, or the kernel's out-of-memory killer, where no cgroup counts its kills: see `dmesg`.",
    "SIGSEGV": "Native code crashed, or recursed too deep: run the step with PYTHONFAULTHANDLER=1 to see where.",
    "SIGABRT": "Native code gave up: its last lines of output tell why.",
}


# Written to a task's result before its step runs; whitespace that JSON may start with. A process that ended without it
# was still importing the flow.
ENTERED = b"\n"
EXIT_ADVICE = (
    "Each task imports the flow's file, and its command line there is 'step' and the task: don't end the process at "
    "module level, or do it only for the commands that you mean."
)


def death(status: int, importing: str = "") -> Diagnosis:
    """The diagnosis of a process that ended before its step did.

    Args:
        status: How it ended, as ``os.waitpid`` reports it.
        importing: The flow's file, where the process was still importing it.
    """
    if os.WIFSIGNALED(status):
        name = signal_name(os.WTERMSIG(status))
        during = f" while it imported {importing}" if importing else ""
        return Diagnosis(
            Outcome.USER_ERROR, f"the task's process was killed by {name}{during}", resolution=_HINTS.get(name, "")
        )
    if importing:
        return Diagnosis(
            Outcome.USER_ERROR,
            f"the task's process ended with exit code {os.WEXITSTATUS(status)} while it imported {importing}",
            resolution=f"Something called os._exit() before the step began. {EXIT_ADVICE}",
        )
    return Diagnosis(
        Outcome.USER_ERROR,
        f"the task's process ended with exit code {os.WEXITSTATUS(status)} before its step was finished",
        resolution="Something called os._exit(), or native code ended the process.",
    )


def timed_out(seconds: float) -> Diagnosis:
    """The diagnosis of a task that was ended by its ``@timeout``."""
    return Diagnosis(
        Outcome.TIMED_OUT,
        f"the task took longer than its timeout of {seconds:g} s, and was ended",
        resolution="Allow it more time by @timeout, or find out what it waits for: its last lines of output may tell.",
        error_type=name_of(TimeoutException),
    )


def signal_name(number: int) -> str:
    """A signal's name as in ``kill -l``."""
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def last_word(text: bytes | bytearray, status: int) -> TaskResult | None:
    """What the task said of itself, or None where it was killed or said nothing that can be read."""
    if os.WIFSIGNALED(status) or not text.strip():
        return None
    try:
        return TaskResult.from_json(bytes(text).decode())
    except ValueError:
        return None
