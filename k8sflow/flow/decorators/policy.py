"""The policy for a step that fails or takes too long, from its decorators and the settings.

A run's record keeps it as a ``StepPolicy``, so that a driver without the flow's code can act on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from k8sflow.config import Settings
from k8sflow.flow.decorators.base import Decoration, options_of

# The outcomes that use up a user's retries; infrastructure failures have a budget of their own.
PAID = ("user_error", "timed_out", "out_of_memory")
# The pauses where minutes_between_retries is not written. On Kubernetes what failed may need minutes to recover. On
# this machine a person waits: 1 s, 2 s, 4 s, so that a server that fails for a moment doesn't meet all retries at once.
DEFAULT_MINUTES_ON_KUBERNETES = 2.0
DEFAULT_SECONDS_HERE = 1.0
DEFAULT_BACKOFF_HERE = 2.0
DEFAULT_LONGEST_SECONDS_HERE = 60.0
# How long a step has for its except and finally blocks, and for saving what it has set, after its timeout.
DEFAULT_GRACE_SECONDS = 10.0
_SECONDS = 60.0
# For the image of a pod or job, and for the agent in it, which ends the task by itself if it can.
_DEADLINE_SLACK_SECONDS = 600


@dataclass(frozen=True)
class RetryPolicy:
    """The number of retries of a task, and the pauses before them.

    Args:
        times: How many times at most.
        pause_seconds: How long it waits before the first of them.
        backoff: What each pause is multiplied with for the next one.
        longest_pause_seconds: What no pause is longer than.
        on: The outcomes after which it is run again.
    """

    times: int = 0
    pause_seconds: float = 0.0
    backoff: float = 1.0
    longest_pause_seconds: float | None = None
    on: tuple[str, ...] = PAID

    def pause_before(self, number: int) -> float:
        """Seconds to wait before the retry of this number, from 1."""
        try:
            pause = self.pause_seconds * self.backoff ** (number - 1)
        except OverflowError:
            pause = float("inf")
        longest = self.longest_pause_seconds
        return pause if longest is None else min(pause, longest)


@dataclass(frozen=True)
class InfrastructureRetry:
    """The number of reruns of a task after failures of the infrastructure, and the pauses before them.

    Args:
        times: How many at most.
        pauses_seconds: How long it waits before each; the last one is repeated. By default they grow: what evicts or
            refuses a pod often lasts for seconds, sometimes for minutes.
    """

    times: int = 3
    pauses_seconds: tuple[float, ...] = (2.0, 20.0, 120.0)

    @staticmethod
    def of(settings: Settings) -> InfrastructureRetry:
        """The reruns that the settings ask for."""
        times, pauses = settings.infrastructure_retries, settings.infrastructure_pauses_seconds
        found = InfrastructureRetry()
        if times is not None:
            found = replace(found, times=int(times))
        if pauses is not None:
            found = replace(found, pauses_seconds=tuple(map(float, pauses.split(","))))
        return found

    def pause_before(self, number: int) -> float:
        """Seconds to wait before the rerun of this number, from 1."""
        return self.pauses_seconds[min(number, len(self.pauses_seconds)) - 1]


@dataclass(frozen=True)
class Catch:
    """The handling of a step that has failed for good.

    Args:
        var: The artifact that holds the exception, or None.
        print_exception: Whether it is shown.
    """

    var: str | None = None
    print_exception: bool = True


@dataclass(frozen=True)
class TimeLimit:
    """The time limit for an attempt of a step's task.

    Args:
        seconds: When TimeoutException is raised in the step.
        grace_seconds: How much later the task is killed, if it is still there; 0 kills it at once.
    """

    seconds: float
    grace_seconds: float = DEFAULT_GRACE_SECONDS


@dataclass(frozen=True)
class StepPolicy:
    """The rules for the tasks of a step.

    Args:
        retry: How often a failed task is run again.
        timeout_seconds: How long an execution may take; None for any time.
        catch: What becomes of a task that has failed for good; None where it ends the run.
        grace_seconds: How long a task may take to end after its timeout.
        infrastructure: How often a task is run again after failures that are not its own.
        more_memory: The memory that it requests each time after it ran out of memory, as Kubernetes quantities.
    """

    retry: RetryPolicy = RetryPolicy()
    timeout_seconds: float | None = None
    catch: Catch | None = None
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    infrastructure: InfrastructureRetry = InfrastructureRetry()
    more_memory: tuple[str, ...] = ()

    @property
    def time_limit(self) -> TimeLimit | None:
        """The time limit for an attempt; None if there is none."""
        return None if self.timeout_seconds is None else TimeLimit(self.timeout_seconds, self.grace_seconds)

    def deadline_seconds(self, requested: int | None, turns: int = 1) -> int | None:
        """The time after which the system ends a pod or job, in seconds from its start; None for no deadline.

        The agent in it ends a task that is over its timeout; this is for the case that it no longer can.

        Args:
            requested: The deadline that the step requests, in seconds.
            turns: How many tasks run in the pod one after the other.
        """
        if self.timeout_seconds is None:
            return requested
        deadline = math.ceil((self.timeout_seconds + self.grace_seconds) * turns) + _DEADLINE_SLACK_SECONDS
        return min(deadline, requested or deadline)

    def memory_after(self, times_out_of_memory: int) -> str:
        """The memory that a task requests after it ran out of memory so many times; empty for that of its step."""
        raises = min(times_out_of_memory, len(self.more_memory))
        return self.more_memory[raises - 1] if raises else ""

    def is_run_again(self, outcome: str, execution: int) -> bool:
        """True if a task is certainly run again after it failed in its execution of this number, from 0."""
        return outcome in self.retry.on and execution < self.retry.times

    def to_document(self) -> dict[str, Any]:
        """The policy as JSON types."""
        return asdict(self)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> StepPolicy:
        """The policy that ``to_document`` wrote."""
        again = document["retry"]
        return StepPolicy(
            RetryPolicy(**{**again, "on": tuple(again["on"])}),
            document["timeout_seconds"],
            Catch(**document["catch"]) if document["catch"] is not None else None,
            document.get("grace_seconds", DEFAULT_GRACE_SECONDS),
            _infrastructure_from(document.get("infrastructure")),
            tuple(document.get("more_memory", ())),
        )

    @staticmethod
    def of(decorations: Sequence[Decoration], *, on_kubernetes: bool) -> StepPolicy:
        """The policy that a step's decorators ask for."""
        limit = options_of(decorations, "timeout")
        caught = options_of(decorations, "catch")
        return StepPolicy(
            _retry_of(options_of(decorations, "retry"), on_kubernetes=on_kubernetes),
            total_seconds(limit) if limit is not None else None,
            Catch(**caught) if caught is not None else None,
            limit["grace_seconds"] if limit is not None else DEFAULT_GRACE_SECONDS,
        )


def _infrastructure_from(document: Mapping[str, Any] | None) -> InfrastructureRetry:
    if document is None:  # the record of an older version
        return InfrastructureRetry()
    return InfrastructureRetry(document["times"], tuple(document["pauses_seconds"]))


def _retry_of(options: dict[str, Any] | None, *, on_kubernetes: bool) -> RetryPolicy:
    if options is None or not options["times"]:
        return RetryPolicy()
    minutes, backoff, longest_minutes = (options[name] for name in ("minutes_between_retries", "backoff", "max_delay"))
    longest = None if longest_minutes is None else longest_minutes * _SECONDS
    if minutes is None and not on_kubernetes:
        pause, default_backoff = DEFAULT_SECONDS_HERE, DEFAULT_BACKOFF_HERE
        longest = DEFAULT_LONGEST_SECONDS_HERE if longest is None else longest
    else:
        pause, default_backoff = (DEFAULT_MINUTES_ON_KUBERNETES if minutes is None else minutes) * _SECONDS, 1.0
    return RetryPolicy(
        times=options["times"],
        pause_seconds=pause,
        backoff=default_backoff if backoff is None else backoff,
        longest_pause_seconds=longest,
        on=options["on"],
    )


def total_seconds(options: Mapping[str, Any]) -> float:
    return float(options["seconds"] + _SECONDS * (options["minutes"] + _SECONDS * options["hours"]))
