"""Events of a run, the actions that follow from them, and its end: what its loop and its state machine exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from k8sflow.errors import K8sflowError
from k8sflow.executors.base import Finished
from k8sflow.flow.decorators.policy import Catch
from k8sflow.runtime.core.retries import Again
from k8sflow.storage.usage import Usage
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec


class RunEnd(Enum):
    """The ways in which a command about a run can end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    # The controller in the cluster has taken the run over, or nothing was to be run.
    DETACHED = "detached"
    PLANNED = "planned"


@dataclass(frozen=True)
class RunResult:
    """The end of a run.

    Args:
        end: How it ended.
        failed: The task whose failure ended it; None after a success, and where the run was cancelled.
        result: How that task ended.
        why: Who cancelled it, where that was not this process's user.
        unended: Why other tasks could not be ended after the failure, and may still run.
        usage: The resources that its tasks used, by step.
    """

    end: RunEnd
    failed: TaskSpec | None = None
    result: TaskResult | None = None
    why: str = ""
    unended: K8sflowError | None = None
    usage: Mapping[str, Usage] = field(default_factory=dict)

    @property
    def is_success(self) -> bool:
        """True if the run reached its end."""
        return self.end is RunEnd.SUCCEEDED


# ---------------------------------------------------------------------- events


@dataclass(frozen=True)
class Start:
    """The run starts, or another driver takes it over.

    Args:
        wall: The time in seconds since 1970.
    """

    wall: float


@dataclass(frozen=True)
class PauseOver:
    """Tasks that wait for their next execution may start."""

    tasks: Sequence[TaskSpec]


@dataclass(frozen=True)
class CatchCommitted:
    """The failure of a task under ``@catch`` has become a result."""

    task: TaskSpec
    result: TaskResult


Event = Start | Finished | PauseOver | CatchCommitted

# ---------------------------------------------------------------------- actions


@dataclass(frozen=True)
class Submit:
    """Tasks of one step are passed to their executor."""

    tasks: Sequence[TaskSpec]


@dataclass(frozen=True)
class Opened:
    """A foreach begins, or continues with another driver.

    Args:
        step: The step of its branches.
        width: How many branches it has; ``max_parallel`` may hold some of them back.
    """

    step: str
    width: int


@dataclass(frozen=True)
class DoneBefore:
    """Tasks of one step have results of earlier drivers, or of the run that this one resumes."""

    tasks: Sequence[TaskSpec]


@dataclass(frozen=True)
class FailedBefore:
    """Tasks have failed under an earlier driver, which died before it could act on it."""

    tasks: Sequence[TaskSpec]
    result: TaskResult


@dataclass(frozen=True)
class Record:
    """A failure is written to the store, unless the task could do so itself: the next driver has to count it."""

    task: TaskSpec
    result: TaskResult


@dataclass(frozen=True)
class Retry:
    """A task, or all that run together, is run again after a pause.

    Args:
        ended: Their executions that ended.
        again: The decision.
        pause_seconds: How much of the pause remains.
        tasks: Their next executions.
    """

    ended: Sequence[tuple[TaskSpec, TaskResult]]
    again: Again
    pause_seconds: float
    tasks: Sequence[TaskSpec]


@dataclass(frozen=True)
class CatchFailure:
    """A failure is turned into a result; ``CatchCommitted`` answers."""

    task: TaskSpec
    failure: TaskResult
    catch: Catch


@dataclass(frozen=True)
class End:
    """The run has ended."""

    result: RunResult


Action = Submit | Opened | DoneBefore | FailedBefore | Record | Retry | CatchFailure | End
