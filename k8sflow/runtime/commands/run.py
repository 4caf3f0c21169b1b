"""``run``: starts a flow, and drives it on this machine or passes it to the cluster."""

from __future__ import annotations

from dataclasses import replace

from k8sflow.flow.compile import checked
from k8sflow.flow.decorators.flow_level import only_deployed
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.commands.create import Prepared, check_executors, create, prepare
from k8sflow.runtime.commands.drive import drive_or_follow
from k8sflow.runtime.commands.lock_environments import lock_environments
from k8sflow.runtime.commands.show import check_packages, show
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.namespace_settings import placed
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.request import RunRequest
from k8sflow.runtime.session import Session


def run(request: RunRequest, console: Console) -> RunEnd:
    """Starts a flow, and sees it to its end unless it is detached.

    Raises:
        K8sflowError: The run can't be started.
    """
    definition = checked(request.definition)
    check_packages(request)
    _explain_deployment(definition, console)
    request, placement = placed(request, definition)
    check_executors(request, definition, placement)
    prepared = prepare(request, placement)
    show_warnings(prepared, console)
    prepared = replace(
        prepared, environments=lock_environments(request, definition, placement, prepared.store, console)
    )
    return begin(request, create(request, definition, placement, prepared), console)


def show_warnings(prepared: Prepared, console: Console) -> None:
    """Shows what may make a run wait on the cluster, or is missing in its bucket."""
    for warning in prepared.warnings:
        console.say(f"Warning: {warning}", Tone.NOTICE, is_aside=True)


def begin(request: RunRequest, session: Session, console: Console) -> RunEnd:
    """Starts a run whose record was just written.

    Raises:
        K8sflowError: It can't start, or the controller refuses it.
    """
    if request.has_page:
        show(request, session, console)
    if not request.is_detached:
        return drive_or_follow(
            session, console, request.asked_at, request.max_workers, take_over=session.is_clone, is_checked=True
        )
    from k8sflow.runtime.detached.submit import submit  # noqa: PLC0415  only here is the API needed

    submit(session, console)
    return RunEnd.DETACHED


def _explain_deployment(definition: FlowDefinition, console: Console) -> None:
    """Names the decorators of the flow that do nothing in a run that a person starts."""
    if found := only_deployed(definition.decorations):
        names = " and ".join(f"@{name}" for name in found)
        verb = "takes" if len(found) == 1 else "take"
        text = f"{names} {verb} effect in a deployment only: this run starts now, and no other one by itself."
        console.say(text, Tone.NOTICE, is_aside=True)
