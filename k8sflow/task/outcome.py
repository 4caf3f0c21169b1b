"""How a task ended: the closed set of outcomes, and the diagnosis that goes with a failure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The ways in which one execution of a task can end."""

    SUCCEEDED = "succeeded"
    USER_ERROR = "user_error"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    PREEMPTED = "preempted"
    EVICTED = "evicted"
    NODE_LOST = "node_lost"
    NEVER_STARTED = "never_started"
    BAD_IMAGE = "bad_image"
    UNSCHEDULABLE = "unschedulable"
    STORAGE_ERROR = "storage_error"
    CANCELLED = "cancelled"

    @property
    def is_failure(self) -> bool:
        """Whether the task has to run again before the run can go on."""
        return self is not Outcome.SUCCEEDED

    @property
    def is_paid_by_user(self) -> bool:
        """Whether a retry of it is taken from the user's ``@retry`` budget."""
        return self in {Outcome.USER_ERROR, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY}


@dataclass(frozen=True)
class Diagnosis:
    """What a person is told about a failure.

    Args:
        category: The outcome that it explains.
        summary: What happened, in one sentence without the task's name.
        detail: The evidence: the scheduler's message, a traceback, the last lines of output.
        resolution: What to do about it.
        error_type: The class of the exception, where it was one of the user's code: ``builtins.ValueError``.
        is_final: Whether another execution would fail in the same way, though the infrastructure is to blame.
    """

    category: Outcome
    summary: str
    detail: str = ""
    resolution: str = ""
    error_type: str = ""
    is_final: bool = False


def name_of(kind: type[BaseException]) -> str:
    """The name of an exception's class as Metaflow has it: ``builtins.ValueError``."""
    return f"{kind.__module__}.{kind.__name__}"
