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


def death(status: int) -> Diagnosis:
    """The diagnosis of a process whose end, ``status`` as of ``os.waitpid``, came before that of its step."""
    if os.WIFSIGNALED(status):
        name = _name(os.WTERMSIG(status))
        return Diagnosis(
            Outcome.USER_ERROR, f"the task's process was killed by {name}", resolution=_HINTS.get(name, "")
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


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def last_word(text: bytes | bytearray, status: int) -> TaskResult | None:
    """What the task said of itself, or None where it was killed or said nothing that can be read."""
    if os.WIFSIGNALED(status) or not text:
        return None
    try:
        return TaskResult.from_json(bytes(text).decode())
    except ValueError:
        return None
