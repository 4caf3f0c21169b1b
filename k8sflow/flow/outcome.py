"""The closed set of ways in which an execution of a task can end."""

from __future__ import annotations

from enum import Enum


class Outcome(str, Enum):
    """The ways in which one execution of a task can end; each is equal to its name in ``@retry(on=...)``."""

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

    def __str__(self) -> str:
        return self.value

    @property
    def is_failure(self) -> bool:
        """True if the task has to run again before the run can continue."""
        return self is not Outcome.SUCCEEDED

    @property
    def is_paid_by_user(self) -> bool:
        """True if a retry of it is taken from the user's ``@retry`` budget."""
        return self in {Outcome.USER_ERROR, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY}
