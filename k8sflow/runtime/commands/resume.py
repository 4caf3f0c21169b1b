"""``resume``: a new run that takes over what an earlier one has done, and runs the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import click

from k8sflow.errors import ParameterError, RunError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.problems import did_you_mean
from k8sflow.runtime import lookup
from k8sflow.runtime.commands import next_steps
from k8sflow.runtime.commands.clone import plan_from
from k8sflow.runtime.commands.run import begin, check_names, check_places, create, prepare
from k8sflow.runtime.core.resume_plan import Plan, Rerun
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.text import brief
from k8sflow.runtime.recorded import recompiled
from k8sflow.runtime.request import RunRequest, local_root
from k8sflow.runtime.session import ActiveRun
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.lease import Holder, folder_lease_of
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.outcome import Outcome
from k8sflow.task.spec import TaskName

# So many of a step's tasks are told by name, with what became of them in the origin.
_NAMED = 3


def resume(
    request: RunRequest, origin: str | None, step: str | None, *, given: Collection[str] = (), dry_run: bool
) -> bool | None:
    """Tells what is taken over and what runs again, and runs it, here or in the cluster; returns as ``begin``.

    Args:
        request: The new run; its values are taken for parameters that the origin doesn't have.
        origin: The run to resume; None for the one that was started last.
        step: The step from which on everything runs again; None for what has no result.
        given: The attributes of the parameters whose values the user has typed.
        dry_run: Whether nothing is to be done after the telling.

    Raises:
        K8sflowError: The run can't be resumed.
    """
    flow = request.flow
    before = lookup.run_of(flow, request.settings, origin) if origin else lookup.latest_of(flow, request.settings)
    record = before.read()
    artifacts = ArtifactStore(before.store, record.flow)
    definition = recompiled(request.definition, record, before.store)
    graph = definition.graph
    _check_step(graph, step)
    _check_parameters(record, given)
    placement = Placement.of(definition, request.decorators, request.settings)
    check_places(request, graph, placement)
    check_names(request, before.store)
    with _claimed(before):
        found = plan_from(before, record, graph, step)
        _tell(found, before, graph)
        for line in _changes(definition, record, artifacts):
            click.secho(line, fg="yellow")
        if dry_run:
            return True
        store, code = prepare(request, placement, before.store)
        new = create(request, definition, placement, store, code, origin=record, origin_step=step)
    active = ActiveRun(new, graph, store, placement, request.settings)
    click.echo(f"The new run is {active.run_store.pathspec}.")
    if not placement.uses_kubernetes and store.url != str(local_root(flow, request.settings)):
        click.echo(f"It is kept in {store.url}, with the run that it resumes.", err=True)
    return begin(request, definition, active)


def _tell(plan: Plan, before: RunStore, graph: Graph) -> None:
    """Prints the plan.

    Raises:
        RunError: There is nothing to run.
    """
    record = before.read()
    if not plan.reruns:
        raise RunError(
            f"there is nothing to resume: every task of {before.pathspec} has a result that still holds.",
            advice=f"To run a step and all that comes after it again, name it: {next_steps.resume(record, 'STEP')}",
        )
    for line in _told(plan, before, before.read_run_outcome(), graph):
        click.echo(line)


def _check_step(graph: Graph, step: str | None) -> None:
    """Refuses a step that is not there.

    Raises:
        RunError: That is so.
    """
    if step is not None and step not in graph.nodes:
        raise RunError(
            f"{graph.flow} has no step {step!r}.",
            advice=f"{did_you_mean(step, list(graph.nodes))} Its steps are {', '.join(graph.nodes)}.".strip(),
        )


@contextmanager
def _claimed(origin: RunStore) -> Iterator[None]:
    """Keeps everybody else from driving or resuming a run that lost its driver, until a new one was made of it.

    Raises:
        RunError: Somebody does so.
    """
    lease = folder_lease_of(origin, is_resuming=True)
    if lease is None or origin.read_run_outcome() is not None:
        yield  # of a process on another machine nobody can tell at once whether it is alive
        return
    if not lease.acquire():
        raise _taken(origin, lease.holder())
    try:
        yield
    finally:
        lease.release()


def _taken(origin: RunStore, holder: Holder | None) -> RunError:
    who = "another process" if holder is None or holder.is_dead else str(holder)
    if holder is not None and holder.is_resuming:
        return RunError(
            f"{origin.pathspec} is just being resumed by {who}.", advice="Follow the new run that is made there."
        )
    return RunError(
        f"{origin.pathspec} is not over: it is driven by {who}.",
        advice=f"Wait for its end, or cancel it. To follow it: {next_steps.attach(origin.read())}",
    )


def _check_parameters(origin: RunRecord, given: Collection[str]) -> None:
    """Refuses another value for a parameter that the origin has.

    Raises:
        ParameterError: That is so.
    """
    if fixed := [name for name in given if name in origin.parameters]:
        raise ParameterError(
            f"the parameter {fixed[0]} can't be given to resume.",
            cause=f"A run that takes over results of {origin.flow}/{origin.run} has its parameters too.",
            advice="Start a run of its own with the new value, by the command run.",
        )


def _told(plan: Plan, origin: RunStore, outcome: OutcomeRecord | None, graph: Graph) -> Iterator[str]:
    """The plan in lines: for each step what is cloned, what runs again, and why."""
    yield f"Resuming {origin.pathspec}, which {_end(outcome)}:"
    kept = Counter(kept.name.step for kept in plan.kept)
    reruns: dict[str, list[Rerun]] = {}
    for rerun in plan.reruns:
        reruns.setdefault(rerun.task.name.step, []).append(rerun)
    had = set(origin.steps())
    width = max(map(len, graph.nodes))
    for step in graph.nodes:
        parts = [f"{kept[step]:,} cloned"] if kept[step] else []
        if step in reruns:
            whys = _whys(reruns[step], origin, had)
            parts.append(f"{len(reruns[step]):,} to run{' again' if step in had else ''}: {whys}")
        elif not kept[step]:
            parts.append("to run again, after what comes before it" if step in had else "to run when it is reached")
        yield f"  {step:{width}}  {', '.join(parts)}"


def _end(outcome: OutcomeRecord | None) -> str:
    if outcome is None:
        return "lost its driver"
    match Outcome(outcome.outcome):
        case Outcome.SUCCEEDED:
            return "succeeded"
        case Outcome.CANCELLED:
            return "was cancelled"
        case _:
            return f"failed ({brief(outcome.summary)})" if outcome.summary else "failed"


def _whys(reruns: Sequence[Rerun], origin: RunStore, had: set[str]) -> str:
    """Why tasks of a step run again: the reasons that are the same for many of them once, else a few by name."""
    told = []
    for why, found in groupby(sorted(reruns, key=lambda rerun: rerun.why or ""), key=lambda rerun: rerun.why):
        names = [rerun.task.name for rerun in found]
        if why is not None:
            told.append(why)
        elif names[0].step not in had:
            told.append("not reached before")
        else:
            told += [f"{name} {_fate(origin, name)}" for name in names[:_NAMED]]
            told += [f"and {len(names) - _NAMED:,} more without a result"] if len(names) > _NAMED else []
    return "; ".join(told)


def _fate(origin: RunStore, name: TaskName) -> str:
    """What became of a task that has no result."""
    attempts = origin.attempts(name.step, name.id)
    record = origin.read_outcome(name.step, name.id, attempts[-1]) if attempts else None
    if record is None:
        return "has not finished" if attempts else "has not begun"
    return f"failed: {brief(record.summary)}" if record.summary else f"ended as {record.outcome.replace('_', ' ')}"


def _changes(definition: FlowDefinition, origin: RunRecord, artifacts: ArtifactStore) -> Iterator[str]:
    """What is another value than that which the cloned tasks have seen."""
    for name, value in definition.constants.items():
        if (ref := origin.parameters.get(name)) is None or artifacts.is_same(value, ref, name):
            continue
        yield f"  The constant {name} has changed: the tasks that are cloned have seen its old value."
