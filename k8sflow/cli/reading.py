"""The commands that read and delete runs: the same ones for a flow's file and for ``k8sflow``."""

from __future__ import annotations

import click

from k8sflow.cli import advise, card, code, du, dump, gc, logs, packages, runs, tags, timeline, ui
from k8sflow.cli.scope import Scope
from k8sflow.flow.spec import FlowSpec


def commands(flow: type[FlowSpec] | None = None) -> list[click.Command]:
    """The commands that read the runs of a flow; without one, those of every flow in the stores of this folder."""
    scope = Scope.of_flow(flow) if flow is not None else Scope.everywhere()
    return [
        advise.command(scope),
        card.command(scope),
        code.command(scope),
        du.command(scope),
        dump.command(scope),
        gc.command(scope),
        logs.command(scope),
        packages.command(scope, flow),
        runs.command(scope),
        tags.command(scope),
        timeline.command(scope),
        ui.command(scope),
    ]
