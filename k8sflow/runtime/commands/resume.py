"""``resume``: a new run that takes over the results of an earlier one, and runs the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby

from k8sflow.errors import ParameterError, RunError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.flow.problems import did_you_mean
from k8sflow.runtime.commands import next_steps
from k8sflow.runtime.commands.clone import plan_from
from k8sflow.runtime.commands.create import check_executors, check_names, create, prepare
from k8sflow.runtime.commands.lock_environments import lock_environments
from k8sflow.runtime.commands.run import begin, show_warnings
from k8sflow.runtime.commands.show import check_packages
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.core.resume_plan import Rerun, ResumePlan
from k8sflow.runtime.lookup import runs_of
from k8sflow.runtime.namespace_settings import placed
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.progress.output_lines import brief
from k8sflow.runtime.request import RunRequest, local_root
from k8sflow.runtime.session import Session, open_session
from k8sflow.storage.lease import LeaseHolder, folder_lease_of
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskName

# How many of a step's tasks are listed by name, with their fate in the origin.
_NAMED = 3


def resume(
    request: RunRequest,
    origin: str | None,
    step: str | None,
    console: Console,
    *,
    given: Collection[str] = (),
    dry_run: bool,
) -> RunEnd:
    """Shows which results are taken over and what runs again, and runs it, here or in the cluster.

    Args:
        request: The new run; its values are taken for parameters that the origin doesn't have.
        origin: The run to resume; None for the one that was started last.
        step: The step from which on everything runs again; None for the tasks that have no result.
        console: Shows the plan and the run.
        given: The attributes of the parameters whose values the user has typed.
        dry_run: Whether only the plan is to be shown.

    Raises:
        K8sflowError: The run can't be resumed.
    """
    check_packages(request)
    flow = request.flow
    runs = runs_of(flow, request.settings)
    run = runs.named(origin) if origin else runs.latest_own()
    before = open_session(run, request.settings, request.definition)
    definition = before.compiled()
    graph = definition.graph
    _check_step(graph, step)
    _check_parameters(before.record, given)
    request, placement = placed(request, definition, is_started=not dry_run)
    check_executors(request, definition, placement)
    check_names(request, before.store)
    with _claimed(before.run_store):
        for line in _plan_lines(before, graph, step):
            console.say(line)
        for line in _changes(definition, before):
            console.say(line, Tone.NOTICE)
        if dry_run:
            return RunEnd.PLANNED
        prepared = prepare(request, placement, before.store)
        show_warnings(prepared, console)
        locks = lock_environments(request, definition, placement, prepared.store, console, before.record)
        prepared = replace(prepared, environments=locks)
        session = create(request, definition, placement, prepared, before.record, step)
    console.say(f"The new run is {session.pathspec}.")
    if not placement.is_remote and session.store.url != local_root(flow, request.settings):
        console.say(f"It is kept in {session.store.url}, with the run that it resumes.", is_aside=True)
    return begin(request, session, console)


def _plan_lines(before: Session, graph: Graph, step: str | None) -> list[str]:
    """The plan in lines.

    Raises:
        RunError: There is nothing to run.
    """
    plan = plan_from(before.run_store, before.record, graph, step)
    if not plan.reruns:
        raise RunError(
            f"there is nothing to resume: every task of {before.pathspec} has a result that is still valid.",
            advice=f"To run a step and all that comes after it again, name it: "
            f"{next_steps.resume(before.record, 'STEP')}",
        )
    return list(_described(plan, before.run_store, _fate_of_run(before), graph))


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
        RunError: Another process is resuming it.
    """
    lease = folder_lease_of(origin, is_resuming=True)
    if lease is None or origin.read_run_outcome() is not None:
        yield  # whether a process on another machine is alive can't be determined at once
        return
    if not lease.acquire():
        raise _taken(origin, lease.holder())
    try:
        yield
    finally:
        lease.release()


def _taken(origin: RunStore, holder: LeaseHolder | None) -> RunError:
    who = "another process" if holder is None or holder.is_dead else str(holder)
    if holder is not None and holder.is_resuming:
        return RunError(
            f"{origin.pathspec} is just being resumed by {who}.", advice="Follow the new run that is created there."
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


def _described(plan: ResumePlan, origin: RunStore, fate: str, graph: Graph) -> Iterator[str]:
    """The plan in lines: for each step what is cloned, what runs again, and why."""
    yield f"Resuming {origin.pathspec}, which {fate}:"
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


def _fate_of_run(origin: Session) -> str:
    """The end of a run, as far as that is known: a driver without keys can't write it into the bucket."""
    outcome = origin.run_store.read_run_outcome()
    if outcome is None and origin.record.is_detached:
        from k8sflow.runtime.detached.watch import end_in_cluster  # noqa: PLC0415  only here is the API needed

        outcome = end_in_cluster(origin)
    if outcome is not None:
        return _end(outcome)
    if folder_lease_of(origin.run_store) is not None:
        return "lost its driver"
    return "has no recorded end: its driver died, could not write it, or still runs"


def _end(outcome: OutcomeRecord) -> str:
    match outcome.outcome:
        case Outcome.SUCCEEDED:
            return "succeeded"
        case Outcome.CANCELLED:
            return "was cancelled"
        case _:
            return f"failed ({brief(outcome.summary)})" if outcome.summary else "failed"


def _whys(reruns: Sequence[Rerun], origin: RunStore, had: set[str]) -> str:
    """Why tasks of a step run again: the reasons that are the same for many of them once, else a few by name."""
    reasons = []
    for why, found in groupby(sorted(reruns, key=lambda rerun: rerun.why or ""), key=lambda rerun: rerun.why):
        names = [rerun.task.name for rerun in found]
        if why is not None:
            reasons.append(why)
        elif names[0].step not in had:
            reasons.append("not reached before")
        else:
            reasons += [f"{name} {_fate(origin, name)}" for name in names[:_NAMED]]
            reasons += [f"and {len(names) - _NAMED:,} more without a result"] if len(names) > _NAMED else []
    return "; ".join(reasons)


def _fate(origin: RunStore, name: TaskName) -> str:
    """The fate of a task that has no result."""
    attempts = origin.attempts(name.step, name.id)
    record = origin.read_outcome(name.step, name.id, attempts[-1]) if attempts else None
    if record is None:
        return "has not finished" if attempts else "has not started"
    return f"failed: {brief(record.summary)}" if record.summary else f"ended as {record.outcome.replace('_', ' ')}"


def _changes(definition: FlowDefinition, origin: Session) -> Iterator[str]:
    """The constants whose values are not those that the cloned tasks have seen."""
    for name, value in definition.constants.items():
        if (ref := origin.record.parameters.get(name)) is None or origin.artifacts.is_same(value, ref, name):
            continue
        yield f"  The constant {name} has changed: the tasks that are cloned have seen its old value."
