"""The decision about a failure: another execution, a commit by ``@catch``, or the end of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from k8sflow.flow.decorators.policy import Catch, StepPolicy
from k8sflow.flow.outcome import Outcome

# The failures that the user doesn't pay for: a task is run again after them on a budget of its own.
INFRASTRUCTURE = frozenset(
    {Outcome.PREEMPTED, Outcome.EVICTED, Outcome.NODE_LOST, Outcome.NEVER_STARTED, Outcome.STORAGE_ERROR}
)


@dataclass(frozen=True)
class Again:
    """The task is run again.

    Args:
        pause_seconds: How long it waits before.
        number: Which of the user's retries this is, from 1; None where it costs none.
        times: How many of them there are.
        memory: The memory that it requests from now on, because it ran out of memory; empty after other failures.
    """

    pause_seconds: float = 0.0
    number: int | None = None
    times: int = 0
    memory: str = ""


@dataclass(frozen=True)
class Caught:
    """The step counts as done, with the exception in an artifact."""

    catch: Catch


@dataclass(frozen=True)
class Failed:
    """The run has failed.

    Args:
        costless: How often the task was run again before because of the infrastructure, if that failed it now too.
    """

    costless: int = 0


Decision = Again | Caught | Failed


def decide(
    policy: StepPolicy, outcome: Outcome, failures: Mapping[Outcome, int], *, is_final: bool = False
) -> Decision:
    """The decision about a task's failure.

    Args:
        policy: The retries, the catch and the memory of the step's decorators.
        outcome: How the execution ended.
        failures: How often the task has failed in which way, this failure included.
        is_final: Whether another execution would fail in the same way, where the infrastructure is to blame.
    """
    costless = sum(failures.get(o, 0) for o in INFRASTRUCTURE)
    if outcome in INFRASTRUCTURE and not is_final and costless <= policy.infrastructure.times:
        return Again(policy.infrastructure.pause_before(max(costless, 1)))
    if not outcome.is_paid_by_user:
        return Failed(costless - 1 if outcome in INFRASTRUCTURE else 0)
    times_out_of_memory = failures.get(Outcome.OUT_OF_MEMORY, 0)
    if outcome is Outcome.OUT_OF_MEMORY and times_out_of_memory <= len(policy.more_memory):
        return Again(memory=policy.memory_after(times_out_of_memory))
    answered_with_memory = min(times_out_of_memory, len(policy.more_memory))
    spent = sum(count for failed, count in failures.items() if failed.is_paid_by_user) - answered_with_memory
    if outcome in policy.retry.on and spent <= policy.retry.times:
        return Again(policy.retry.pause_before(spent), spent, policy.retry.times)
    return Failed() if policy.catch is None else Caught(policy.catch)
