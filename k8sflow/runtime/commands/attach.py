"""``attach``: takes over a run whose driver is dead, or follows one whose driver lives."""

from __future__ import annotations

from k8sflow.config import Settings
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.commands.display import display_outcome
from k8sflow.runtime.commands.drive import drive_or_follow
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.lookup import runs_of
from k8sflow.runtime.namespace_settings import with_settings
from k8sflow.runtime.progress.console import Console
from k8sflow.runtime.session import open_session


def attach(
    declared: FlowDefinition,
    settings: Settings,
    run: str,
    console: Console,
    asked_at: float,
    max_workers: int | None = None,
) -> RunEnd:
    """Sees a run to its end, whichever process drives it.

    Args:
        declared: What the flow declares, for the tasks on this machine.
        settings: The settings.
        run: The run, ``run`` or ``flow/run``.
        console: Shows it.
        asked_at: When the user asked, by time.monotonic().
        max_workers: How many tasks run at a time, where this process drives the run.

    Raises:
        K8sflowError: There is no such run, or it can't continue.
    """
    session = open_session(runs_of(declared.flow, settings).named(run), settings, declared)
    if (outcome := session.run_store.read_run_outcome()) is not None:
        return display_outcome(session, console, outcome)
    session = with_settings(session)
    return drive_or_follow(session, console, asked_at, max_workers, take_over=True)
