"""The commands that read runs: the same ones for a flow's file and for ``k8sflow``."""

from __future__ import annotations

import click

from k8sflow.cli import dump, logs, packages, runs, tags
from k8sflow.cli.places import Reach
from k8sflow.flow.spec import FlowSpec


def commands(flow: type[FlowSpec] | None = None) -> list[click.Command]:
    """The commands that read the runs of a flow; without one, those of every flow that can be seen from here."""
    reach = Reach.of_flow(flow) if flow is not None else Reach.everywhere()
    return [
        dump.command(reach),
        logs.command(reach),
        packages.command(reach, flow),
        runs.command(reach),
        tags.command(reach),
    ]
