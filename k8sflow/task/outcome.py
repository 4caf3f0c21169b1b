"""The closed set of ways in which an execution of a task can end."""

from __future__ import annotations

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


def name_of(kind: type[BaseException]) -> str:
    """The name of an exception's class as Metaflow has it: ``builtins.ValueError``."""
    return f"{kind.__module__}.{kind.__name__}"
