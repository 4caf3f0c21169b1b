"""Drives a run on this machine, or follows it as long as another process drives it; never two drivers of one run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

from k8sflow.errors import (
    AccessError,
    K8sflowError,
    LoginEndedError,
    RunCancelledError,
    RunError,
    StorageError,
    SupersededError,
)
from k8sflow.executors.base import Executor, Report
from k8sflow.executors.by_name import LOCAL
from k8sflow.runtime.commands import exit_hooks, next_steps
from k8sflow.runtime.commands.clone import clone
from k8sflow.runtime.commands.display import display, display_end, display_outcome
from k8sflow.runtime.commands.interrupts import interrupts
from k8sflow.runtime.core.actions import RunEnd, RunResult
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.preflight import check_systems
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.progress.follow import RunFollower
from k8sflow.runtime.session import Session
from k8sflow.storage.clones import is_complete
from k8sflow.storage.lease import Lease, lease_of
from k8sflow.storage.records import OutcomeRecord


def drive_or_follow(
    session: Session,
    console: Console,
    asked_at: float,
    max_workers: int | None = None,
    *,
    take_over: bool = False,
    is_checked: bool = False,
) -> RunEnd:
    """Sees a run to its end: drives it, or follows it as long as another process does.

    Args:
        session: The run.
        console: Shows it.
        asked_at: When the user asked, by time.monotonic().
        max_workers: How many tasks run at a time, where this process drives.
        take_over: Whether an earlier driver may have done a part of it.
        is_checked: Whether bucket and cluster were just checked.

    Raises:
        K8sflowError: The run can't continue.
    """
    while True:
        lease = lease_of(session.run_store)
        if session.record.is_detached:
            return display_outcome(session, console, _follow_detached(session, console, asked_at))
        try:
            if not lease.acquire():
                driver = f"is driven by {lease.holder() or 'another process'}"
                outcome = _follow(session, console, asked_at, driver, lease.acquire)
                if outcome is not None:
                    return display_outcome(session, console, outcome)
                console.say("Its driver died; this process is taking over.", Tone.NOTICE)
            if take_over and (outcome := session.run_store.read_run_outcome()) is not None:
                return display_outcome(session, console, outcome)
            if take_over:
                session = _compiled(session, is_checked=is_checked)
            return _drive(session, console, asked_at, max_workers, lease, take_over=take_over)
        except SupersededError as error:
            console.say(str(error), Tone.NOTICE)
        finally:
            lease.release()
        take_over, is_checked = True, False


def drive(
    session: Session,
    executors: Callable[[Report], Mapping[str, Executor]],
    observer: Observer,
    *,
    take_over: bool,
    is_new: bool,
) -> RunResult:
    """Drives a run to its end, after it has taken over the results of the run that it resumes.

    Args:
        session: The run.
        executors: Makes the executors, by name.
        observer: Watches the run.
        take_over: Whether an earlier driver may have done a part of it.
        is_new: Whether no task of the run can be running yet.
    """
    try:
        if session.is_clone:
            clone(session)
        return session.drive(executors, observer, take_over=take_over)
    except KeyboardInterrupt:
        if is_new:  # else its loop may not have started, and tasks of an earlier driver may be running
            session.record_cancelled()
        return RunResult(RunEnd.CANCELLED)
    except RunCancelledError as error:
        return RunResult(RunEnd.CANCELLED, why=error.summary)


def _drive(
    session: Session, console: Console, asked_at: float, max_workers: int | None, lease: Lease, *, take_over: bool
) -> RunEnd:
    reporter = display(session, console, asked_at)
    made: dict[str, Executor] = {}

    def executors(report: Report) -> dict[str, Executor]:
        for name in session.executors:
            made[name] = session.executor(
                name, report, max_workers=max_workers, lock=lease.descriptor, notice=reporter.notice
            )
        lease.keep(lambda: report(_superseded(session)), lambda: _report_cancel_request(session, report))
        return made

    def abandon() -> None:
        for executor in made.values():
            executor.abandon()

    is_new = not take_over or (session.is_clone and not is_complete(session.run_store))
    last_words = f"Left before {session.pathspec} was cancelled. To continue it: {next_steps.attach(session.record)}"
    with interrupts(reporter.cancelling, last_words, abandon), closing(reporter):
        try:
            result = drive(session, executors, reporter, take_over=take_over, is_new=is_new)
        except SupersededError:
            raise
        except LoginEndedError as error:
            advice = f"Log in again, for example `aws sso login`. To continue it: {next_steps.attach(session.record)}"
            raise LoginEndedError(error.summary, cause=error.cause, advice=advice, code=error.code) from error
        except K8sflowError:
            exit_hooks.call_here(session, console, is_success=False)
            raise
        display_end(session, reporter, result)
        exit_hooks.call_here(session, console, is_success=result.is_success)
        return result.end


def _follow_detached(session: Session, console: Console, asked_at: float) -> OutcomeRecord:
    """Shows a run that is driven in the cluster until it has ended, and how.

    If the driver is dead and can't write the end into the store, this process does.
    """
    from k8sflow.runtime.detached.watch import FlowRunWatch  # noqa: PLC0415  only here is the API needed

    watch = FlowRunWatch(session, console)
    outcome = _follow(session, console, asked_at, watch.driver(), watch.is_over)
    if outcome is not None:
        return outcome
    assert watch.end is not None
    with contextlib.suppress(StorageError, AccessError):  # a user with read-only access still sees the end
        session.run_store.write_run_outcome(watch.end)
    return watch.end


def _follow(
    session: Session, console: Console, asked_at: float, driver: str, is_orphan: Callable[[], bool]
) -> OutcomeRecord | None:
    """Shows a run until it has ended, and returns how; None if it has no driver any more.

    Args:
        session: The run.
        console: Shows it.
        asked_at: When the user asked, by time.monotonic().
        driver: The process that drives it, as the end of a sentence about the run.
        is_orphan: Whether the run has no driver any more; called repeatedly.
    """
    reporter = display(session, console, asked_at)
    try:
        follower = RunFollower(session.graph, session.run_store, reporter, session.placement.policies)
        count = follower.done_before
        done = f"; {count} of its tasks {'is' if count == 1 else 'are'} done" if count else ""
        console.say(f"{session.pathspec} {driver}{done}. Ctrl-C leaves it alone.", Tone.DIM)
        with closing(reporter):
            return follower.follow(is_orphan)
    except KeyboardInterrupt:
        console.say(f"{session.pathspec} continues. To follow it again: {next_steps.attach(session.record)}")
        raise


def _compiled(session: Session, *, is_checked: bool) -> Session:
    """The run with the compiled flow, where tasks run on this machine, if it has the graph of the run's start.

    Raises:
        RunError: The graph has changed.
        K8sflowError: The flow has problems, or the cluster can't be used.
    """
    if session.placement.is_remote and not is_checked:
        check_systems(session.placement, session.settings, session.record.flow)
    if LOCAL not in session.executors:
        return session
    definition = session.compiled()
    if definition.graph.shape() != session.graph.shape():
        raise RunError(
            f"{definition.name} has another graph than when {session.pathspec} was started.",
            advice=f"Resume it as a new run, which reuses what is still valid: {next_steps.resume(session.record)}",
        )
    return replace(session, definition=definition)


def _report_cancel_request(session: Session, report: Report) -> None:
    """Reports that someone has asked to cancel the run: between two tasks, no deleted Job shows it."""
    if (request := session.run_store.read_cancel_request()) is not None:
        report(RunCancelledError(request.summary))


def _superseded(session: Session) -> SupersededError:
    return SupersededError(
        f"another process has taken over {session.pathspec}.",
        cause="Nothing was heard of this one for too long: this machine was asleep, or could not reach the bucket.",
    )
