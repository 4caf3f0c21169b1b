"""The work of a run's earlier drivers, read from the store before the next driver starts (invariant I5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.core.retries import INFRASTRUCTURE
from k8sflow.storage.clones import read_commits
from k8sflow.storage.records import OutcomeRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import Transition


@dataclass(frozen=True)
class Earlier:
    """The work of earlier drivers, by ``step/id``.

    Args:
        transitions: Where the tasks that have a result send the run.
        started: The last execution that wrote anything, for tasks without a result.
        ended: The executions whose end is recorded, for these, and for all tasks that run together with others.
    """

    transitions: Mapping[str, Transition] = field(default_factory=dict)
    started: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[str, Mapping[int, OutcomeRecord]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True if no earlier driver did anything."""
        return not (self.transitions or self.started)


@dataclass(frozen=True)
class Past:
    """The earlier executions of a task, or of all that run together.

    Args:
        last: The last execution whose end is recorded.
        record: How it ended.
        failures: How often the task has failed in which way.
    """

    last: int
    record: OutcomeRecord
    failures: Counter[Outcome]


def past_of(ended: Mapping[int, OutcomeRecord]) -> Past | None:
    """The past of a task that has no result; None where no end of an execution is recorded."""
    if not ended:
        return None
    last = max(ended)
    return Past(last, ended[last], Counter(record.outcome for record in ended.values()))


def past_together(ended: Sequence[Mapping[int, OutcomeRecord]]) -> Past | None:
    """The past of tasks that run together: each execution of all of them is one failure.

    The first that failed by itself is to blame; others were cancelled because of it.
    """
    failures: Counter[Outcome] = Counter()
    past = None
    for attempt in sorted({attempt for records in ended for attempt in records}):
        records = [found[attempt] for found in ended if attempt in found]
        own = (record for record in records if record.outcome.is_paid_by_user)
        blamed = next(own, next((record for record in records if record.outcome in INFRASTRUCTURE), None))
        if blamed is not None:
            failures[blamed.outcome] += 1
            past = Past(attempt, blamed, failures)
    return past


@dataclass
class Listing:
    """The executions of a run's tasks, as one listing of its keys shows them.

    Args:
        committed: The tasks that have a result, as step and id.
        attempts: For each task, its executions that wrote anything, and whether their end is recorded.
    """

    committed: list[tuple[str, str]] = field(default_factory=list)
    attempts: dict[tuple[str, str], dict[int, bool]] = field(default_factory=dict)


def list_executions(run_store: RunStore, steps: Iterable[str]) -> Listing:
    """The executions of the steps' tasks, from one listing."""
    known, found = set(steps), Listing()
    for step, task, rest in run_store.task_keys():
        attempt, _, file = rest.partition("/")
        if step not in known:  # that of an exit hook
            continue
        if rest == "commit.json":
            found.committed.append((step, task))
        elif attempt.isdigit():
            attempts = found.attempts.setdefault((step, task), {})
            attempts[int(attempt)] = attempts.get(int(attempt), False) or file == "outcome.json"
    return found


def read_ended(run_store: RunStore, step: str, task: str, attempts: Iterable[int]) -> dict[int, OutcomeRecord]:
    """The ends of a task's executions, as far as they are recorded."""
    records = ((attempt, run_store.read_outcome(step, task, attempt)) for attempt in sorted(attempts))
    return {attempt: record for attempt, record in records if record is not None}


def read_earlier(run_store: RunStore, graph: Graph) -> Earlier:
    """Reads the work of a run's earlier drivers.

    Raises:
        StorageError: The store can't be read.
    """
    listing = list_executions(run_store, graph.nodes)
    commits = zip(listing.committed, read_commits(run_store, listing.committed), strict=True)
    transitions = {
        f"{step}/{task}": Transition(commit.steps, commit.width, commit.max_parallel)
        for (step, task), commit in commits
        if commit is not None
    }
    together = {node.next[0] for node in graph.nodes.values() if node.num_parallel}
    started, ended = {}, {}
    for (step, task), attempts in listing.attempts.items():
        name = f"{step}/{task}"
        if name not in transitions:
            started[name] = max(attempts)
        if name not in transitions or step in together:
            ended[name] = read_ended(run_store, step, task, [a for a, has_ended in attempts.items() if has_ended])
    return Earlier(transitions, started, ended)
