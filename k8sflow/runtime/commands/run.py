"""``run``: starts a flow, and drives it on this machine or passes it to the cluster."""

from __future__ import annotations

from k8sflow.flow.compile import build
from k8sflow.flow.decorators import deployment
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.commands.create import check_executors, create, prepare
from k8sflow.runtime.commands.drive import drive_or_follow
from k8sflow.runtime.core.run_state import RunEnd
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.request import RunRequest
from k8sflow.runtime.session import Session


def run(request: RunRequest, console: Console) -> RunEnd:
    """Starts a flow, and sees it to its end unless it is detached.

    Raises:
        K8sflowError: The run can't be started.
    """
    graph = build(request.flow)
    _explain_deployment(request.flow, console)
    placement = Placement.of(request.flow, graph, request.decorators, request.settings)
    check_executors(request, graph, placement)
    return begin(request, create(request, graph, placement, prepare(request, placement)), console)


def begin(request: RunRequest, session: Session, console: Console) -> RunEnd:
    """Starts a run whose record was just written.

    Raises:
        K8sflowError: It can't start, or the controller refuses it.
    """
    if not request.is_detached:
        return drive_or_follow(session, console, request.asked_at, request.max_workers, take_over=session.is_clone)
    from k8sflow.runtime.detached import flowrun  # noqa: PLC0415  only here is the API needed

    flowrun.submit(session, console)
    return RunEnd.DETACHED


def _explain_deployment(flow: type[FlowSpec], console: Console) -> None:
    """Names the decorators of the flow that do nothing in a run that a person starts."""
    if found := deployment.only_deployed(flow):
        names = " and ".join(f"@{name}" for name in found)
        verb = "takes" if len(found) == 1 else "take"
        text = f"{names} {verb} effect in a deployment only: this run starts now, and no other one by itself."
        console.say(text, Tone.NOTICE, is_aside=True)
