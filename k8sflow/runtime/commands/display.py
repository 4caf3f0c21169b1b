"""The display of a run: while it is driven or followed, and when it has ended."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial

from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.commands import next_steps
from k8sflow.runtime.core.actions import RunEnd, RunResult
from k8sflow.runtime.progress import Reporter
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.progress.output_lines import settled
from k8sflow.runtime.session import Session
from k8sflow.storage.records import OutcomeRecord


def display(session: Session, console: Console, asked_at: float) -> Reporter:
    """Shows a run from now on.

    Args:
        session: The run.
        console: Where.
        asked_at: When the user asked for it, by time.monotonic().
    """
    logs = partial(next_steps.logs, session.record)
    reporter = console.reporter(asked_at, logs, session.pathspec, list(session.graph.nodes))
    session.store.report_outages(reporter.notice)
    return reporter


def display_end(session: Session, reporter: Reporter, result: RunResult) -> None:
    """Shows how a run ended that this process has driven, and the next steps."""
    resume = f"  to resume:   {next_steps.resume(session.record)}"
    match result:
        case RunResult(RunEnd.CANCELLED):
            reporter.summary(session.pathspec, f"was {result.why or 'cancelled'}", resume, result.usage, good=False)
        case RunResult(RunEnd.FAILED, task, found) if task is not None and found is not None:
            reporter.failure(task, found)
            output = f"  its output:  {next_steps.logs(session.record, task.name)}\n"
            end = "was cancelled" if found.outcome is Outcome.CANCELLED else "failed"
            reporter.summary(session.pathspec, end, _unended(result) + output + resume, result.usage, good=False)
        case _:
            hint = f'Results: k8sflow.Flow("{session.record.flow}")["{session.record.run}"].data'
            reporter.summary(session.pathspec, "succeeded", hint, result.usage, good=True)


def _unended(result: RunResult) -> str:
    """The lines about tasks that may still run."""
    if (error := result.unended) is None:
        return ""
    parts = (f"Its other tasks may still run: {error.summary}", error.cause, error.advice)
    return "".join(f"  {part}\n" for part in parts if part)


def display_outcome(session: Session, console: Console, outcome: OutcomeRecord) -> RunEnd:
    """Shows how a run ended that another process has driven; returns it."""
    when = datetime.fromtimestamp(outcome.finished, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    match outcome.outcome:
        case Outcome.SUCCEEDED:
            console.say(f"{session.pathspec} succeeded at {when}.", Tone.GOOD)
            return RunEnd.SUCCEEDED
        case Outcome.CANCELLED:
            end, verb = RunEnd.CANCELLED, "was cancelled"
        case _:
            end, verb = RunEnd.FAILED, "failed"
    why = (
        f": {settled(outcome.summary).removeprefix('cancelled ')}"
        if outcome.summary not in {"", Outcome.CANCELLED}
        else "."
    )
    console.say(f"{session.pathspec} {verb} at {when}{why}", Tone.BAD)
    console.say(f"  to resume:  {next_steps.resume(session.record)}")
    return end
