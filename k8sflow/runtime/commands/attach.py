"""Goes on with a run whose driver is dead, or follows one whose driver lives; never two drivers of one run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone

import click

from k8sflow.config import Settings
from k8sflow.errors import K8sflowError, RunError, StorageError, SupersededError
from k8sflow.executors.base import Executor
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime import lookup, remote
from k8sflow.runtime.commands import next_steps
from k8sflow.runtime.commands.clone import clone
from k8sflow.runtime.commands.interrupts import interrupts
from k8sflow.runtime.core.loop import Driver, Report, RunResult
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.follow import Follower
from k8sflow.runtime.progress.text import settled
from k8sflow.runtime.recorded import redeclared
from k8sflow.runtime.session import KUBERNETES, LOCAL, ActiveRun
from k8sflow.storage.clones import is_complete
from k8sflow.storage.lease import Lease, lease_of
from k8sflow.storage.records import OutcomeRecord
from k8sflow.task.outcome import Outcome


def attach(
    declared: FlowDefinition, settings: Settings, run: str, max_workers: int | None, began: float
) -> bool | None:
    """Sees a run to its end, whoever drives it; whether it succeeded, or None where it was cancelled.

    Args:
        declared: What the flow declares, for the tasks on this machine.
        settings: The settings that hold.
        run: The run, ``run`` or ``flow/run``.
        max_workers: How many tasks run at a time, where this process drives the run.
        began: When the user asked, by time.monotonic().

    Raises:
        K8sflowError: There is no such run, or it can't go on.
    """
    run_store = lookup.run_of(declared.flow, settings, run)
    record = run_store.read()
    definition = redeclared(declared, record, run_store.store)
    placement = Placement.from_document(record.pods, settings)
    active = ActiveRun(record, definition.graph, run_store.store, placement, settings)
    if (outcome := run_store.read_run_outcome()) is not None:
        return _told(active, outcome)
    return drive_or_follow(active, definition, max_workers, began, go_on=True)


def drive_or_follow(
    active: ActiveRun, definition: FlowDefinition, max_workers: int | None, began: float, *, go_on: bool = False
) -> bool | None:
    """Drives a run, or follows it as long as somebody else does; returns as ``attach``.

    Args:
        active: The run.
        definition: The flow.
        max_workers: How many tasks run at a time.
        began: When the user asked, by time.monotonic().
        go_on: Whether an earlier driver may have left something.

    Raises:
        K8sflowError: The run can't go on.
    """
    while True:
        lease = lease_of(active.run_store)
        if active.record.is_detached:
            return _told(active, _follow_detached(active, began))
        if not lease.acquire():
            outcome = _follow(active, began, str(lease.holder() or "another process"), lease.acquire)
            if outcome is not None:
                return _told(active, outcome)
            click.secho("Its driver is gone; this process goes on with it.", fg="yellow")
        try:
            if go_on and (outcome := active.run_store.read_run_outcome()) is not None:
                return _told(active, outcome)
            if go_on:
                definition = _compiled(active, definition)
            return _drive(active, definition, max_workers, began, lease, go_on=go_on)
        except SupersededError as error:
            click.secho(str(error), fg="yellow")
        finally:
            lease.release()
        go_on = True


def _drive(
    active: ActiveRun, definition: FlowDefinition, max_workers: int | None, began: float, lease: Lease, *, go_on: bool
) -> bool | None:
    seen = active.reporter(began)
    made: dict[str, Executor] = {}

    def executors(report: Report) -> dict[str, Executor]:
        # The local executor forks, so it comes before anything that starts a thread.
        if len(active.placement.pods) < len(active.graph.nodes):
            made[LOCAL] = active.local(report, definition, max_workers, lease.descriptor)
        if active.placement.uses_kubernetes:
            made[KUBERNETES] = active.kubernetes(report, max_workers)
        lease.keep(lambda: report(_superseded(active)))
        return made

    is_new = not go_on or (active.record.origin_run_id is not None and not is_complete(active.run_store))
    last_word = (
        f"Left before {active.run_store.pathspec} was cancelled. To go on with it: {next_steps.attach(active.record)}"
    )

    def abandon() -> None:
        for executor in made.values():
            executor.abandon()

    with interrupts(seen.cancelling, last_word, abandon), closing(seen):
        try:
            result = _result(active, active.driver(executors, [seen]), is_new=is_new, go_on=go_on)
        except SupersededError:
            raise
        except K8sflowError:
            active.call_exit_hooks(definition, is_success=False)
            raise
        success = active.conclude(seen, result)
        active.call_exit_hooks(definition, is_success=success is True)
        return success


def _result(active: ActiveRun, driver: Driver, *, is_new: bool, go_on: bool) -> RunResult | None:
    """How a run ended that is driven here; None where it was cancelled."""
    try:
        if active.record.origin_run_id is not None:
            clone(active)
        return driver.run(go_on=go_on)
    except KeyboardInterrupt:
        # It may have come before the driver had begun; then nothing runs, unless an earlier driver has left it.
        if is_new:
            active.note_cancelled()
        return None


def _follow_detached(active: ActiveRun, began: float) -> OutcomeRecord:
    """Tells of a run that is driven in the cluster until it has ended, and how.

    Where nobody is left there who could write the end into the store, this process does.
    """
    from k8sflow.runtime.detached.watch import FlowRunWatch  # noqa: PLC0415  only here is the API needed

    watch = FlowRunWatch(active)
    outcome = _follow(active, began, "a driver in the cluster", watch.is_over)
    if outcome is not None:
        return outcome
    assert watch.end is not None
    with contextlib.suppress(StorageError):  # who may only read is told all the same
        active.run_store.write_run_outcome(watch.end)
    return watch.end


def _follow(active: ActiveRun, began: float, driver: str, is_orphan: Callable[[], bool]) -> OutcomeRecord | None:
    """Tells of the run until it has ended, and how; None where the store will not be told of an end any more.

    Args:
        active: The run.
        began: When the user asked, by time.monotonic().
        driver: Who drives it.
        is_orphan: Whether nobody does any more; asked again and again.
    """
    seen = active.reporter(began)
    try:
        follower = Follower(active.graph, active.run_store, seen, active.policies)
        done = f"; {follower.done_before} of its tasks are done" if follower.done_before else ""
        click.secho(f"{active.run_store.pathspec} is driven by {driver}{done}. Ctrl-C leaves it alone.", dim=True)
        with closing(seen):
            return follower.follow(is_orphan)
    except KeyboardInterrupt:
        click.echo(f"{active.run_store.pathspec} goes on. To look again: {next_steps.attach(active.record)}")
        raise


def _compiled(active: ActiveRun, definition: FlowDefinition) -> FlowDefinition:
    """The compiled flow, where tasks run on this machine, if its graph is the one that the run was started with.

    Raises:
        RunError: It isn't.
        FlowDefinitionError: The flow has problems.
    """
    here = [node for name, node in active.graph.nodes.items() if name not in active.placement.pods]
    if active.placement.uses_kubernetes:
        remote.check(active.settings, active.placement, is_handed_over=False)
    if not here or definition.is_compiled:
        return definition
    current = compile_flow(definition.flow, definition.configs, definition.attributes)
    if current.graph.shape() != active.graph.shape():
        raise RunError(
            f"{definition.name} has another graph than when {active.run_store.pathspec} was started.",
            advice=f"Resume it as a new run, which reuses what is still valid: {next_steps.resume(active.record)}",
        )
    return current


def _superseded(active: ActiveRun) -> SupersededError:
    return SupersededError(
        f"another process has taken over {active.run_store.pathspec}.",
        cause="Nothing was heard of this one for too long: this machine was asleep, or could not reach the bucket.",
    )


def _told(active: ActiveRun, outcome: OutcomeRecord) -> bool | None:
    """Tells how a run has ended; what the exit code follows from."""
    when = datetime.fromtimestamp(outcome.finished, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    pathspec = active.run_store.pathspec
    if outcome.outcome == Outcome.SUCCEEDED.value:
        click.secho(f"{pathspec} succeeded at {when}.", fg="green")
        return True
    is_cancelled = outcome.outcome == Outcome.CANCELLED.value
    what = "was cancelled" if is_cancelled else "failed"
    why = f": {settled(outcome.summary)}" if outcome.summary not in {"", Outcome.CANCELLED.value} else "."
    click.secho(f"{pathspec} {what} at {when}{why}", fg="red")
    click.echo(f"  to go on:  {next_steps.resume(active.record)}")
    return None if is_cancelled else False
