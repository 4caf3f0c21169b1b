"""What follows from a failure: another execution, a commit by ``@catch``, or the end of the run.

And what of all that earlier drivers have left in the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from k8sflow.flow.decorators.policy import Catch, StepPolicy
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.outcome import Outcome
from k8sflow.task.spec import TaskSpec

# How often a task is run again after failures of the infrastructure, which the user doesn't pay for.
INFRASTRUCTURE_RETRIES = 3
INFRASTRUCTURE = frozenset(
    {Outcome.PREEMPTED, Outcome.EVICTED, Outcome.NODE_LOST, Outcome.NEVER_STARTED, Outcome.STORAGE_ERROR}
)
# Before each of these executions: what takes a pod away or refuses it often lasts for seconds, sometimes for minutes.
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
    """What follows from a task's failure.

    Args:
        policy: What the step's decorators ask for.
        outcome: How the execution ended.
        failures: How often the task has failed in which way, this time among them.
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


@dataclass(frozen=True)
class Past:
    """What earlier drivers' executions of a task have left.

    Args:
        last: The last execution whose end is known.
        record: How it ended.
        failures: How often the task has failed in which way.
    """

    last: int
    record: OutcomeRecord
    failures: Counter[Outcome]


def read_past(run_store: RunStore, step: str, task: str, attempts: list[int]) -> Past | None:
    """The past of a task that has no commit; None where nothing has ended yet."""
    failures: Counter[Outcome] = Counter()
    past = None
    for attempt in sorted(attempts):
        record = run_store.read_outcome(step, task, attempt)
        if record is not None:
            failures[Outcome(record.outcome)] += 1
            past = Past(attempt, record, failures)
    return past


def read_past_together(run_store: RunStore, tasks: Sequence[TaskSpec], attempts: list[int]) -> Past | None:
    """The past of tasks that run together: of each execution of all of them one failure, that of the user's code."""
    failures: Counter[Outcome] = Counter()
    past = None
    for attempt in attempts:
        records = (run_store.read_outcome(task.name.step, task.name.id, attempt) for task in tasks)
        blamed = next((found for found in records if found and Outcome(found.outcome).is_paid_by_user), None)
        if blamed is not None:
            failures[Outcome(blamed.outcome)] += 1
            past = Past(attempt, blamed, failures)
    return past


@dataclass
class Left:
    """What earlier drivers have left, by ``str(TaskName)``, which is what a listing tells.

    Args:
        committed: The tasks that have a result.
        ended: Of the others, the executions that are known to have ended.
        begun: Of the others, the last execution that has left anything.
    """

    committed: set[str] = field(default_factory=set)
    ended: dict[str, list[int]] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)


def look(run_store: RunStore) -> Left:
    """What earlier drivers have left, from one listing."""
    found = Left()
    for step, task, rest in run_store.task_keys():
        name, (attempt, _, file) = f"{step}/{task}", rest.partition("/")
        if rest == "commit.json":
            found.committed.add(name)
        elif attempt.isdigit():
            found.begun[name] = max(int(attempt), found.begun.get(name, 0))
            if file == "outcome.json":
                found.ended.setdefault(name, []).append(int(attempt))
    for known in (found.ended, found.begun):
        for name in found.committed & known.keys():
            del known[name]
    return found
