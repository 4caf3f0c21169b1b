"""The decision about a failure: another execution, a commit by ``@catch``, or the end of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from k8sflow.flow.decorators.policy import Catch, StepPolicy
from k8sflow.task.outcome import Outcome

# How often a task is run again after failures of the infrastructure, which the user doesn't pay for.
INFRASTRUCTURE_RETRIES = 3
INFRASTRUCTURE = frozenset(
    {Outcome.PREEMPTED, Outcome.EVICTED, Outcome.NODE_LOST, Outcome.NEVER_STARTED, Outcome.STORAGE_ERROR}
)
# Before each of these executions: what evicts or refuses a pod often lasts for seconds, sometimes for minutes.
INFRASTRUCTURE_PAUSES_SECONDS = (2.0, 20.0, 120.0)


@dataclass(frozen=True)
class Again:
    """The task is run again.

    Args:
        pause_seconds: How long it waits before.
        number: Which of the user's retries this is, from 1; None where it costs none.
        times: How many of them there are.
    """

    pause_seconds: float = 0.0
    number: int | None = None
    times: int = 0


@dataclass(frozen=True)
class Caught:
    """The step counts as done, with the exception in an artifact."""

    catch: Catch


@dataclass(frozen=True)
class Failed:
    """The run has failed."""


Decision = Again | Caught | Failed


def decide(
    policy: StepPolicy, outcome: Outcome, failures: Mapping[Outcome, int], *, is_final: bool = False
) -> Decision:
    """The decision about a task's failure.

    Args:
        policy: The retries and the catch of the step's decorators.
        outcome: How the execution ended.
        failures: How often the task has failed in which way, this failure included.
        is_final: Whether another execution would fail in the same way, where the infrastructure is to blame.
    """
    costless = sum(failures.get(o, 0) for o in INFRASTRUCTURE)
    if outcome in INFRASTRUCTURE and not is_final and costless <= INFRASTRUCTURE_RETRIES:
        return Again(INFRASTRUCTURE_PAUSES_SECONDS[max(costless, 1) - 1])
    if not outcome.is_paid_by_user:
        return Failed()
    spent = sum(count for failed, count in failures.items() if failed.is_paid_by_user)
    if outcome.value in policy.retry.on and spent <= policy.retry.times:
        return Again(policy.retry.pause_before(spent), spent, policy.retry.times)
    return Failed() if policy.catch is None else Caught(policy.catch)
