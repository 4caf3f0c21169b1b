"""``k8sflow``: the commands that need no flow file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

import k8sflow
from k8sflow import config
from k8sflow.cli.errors import leave, told


@click.group()
def main() -> None:
    """Data and ML flows as plain Python classes: on your machine, and unchanged on Kubernetes.

    A flow has commands of its own: python flow.py --help
    """


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"k8sflow {k8sflow.__version__}")


@main.command(name="config")
def show_config() -> None:
    """Print the settings that hold in this folder."""
    with told():
        settings = config.load(Path.cwd())
    for field in fields(settings):
        value = getattr(settings, field.name)
        click.echo(f"{config.variable(field.name):36} {'' if value is None else value}")


@main.command(hidden=True)
@click.argument("flow")
@click.argument("run_id")
@click.option("--flowrun", required=True, help="The FlowRun that owns the run.")
def drive(flow: str, run_id: str, flowrun: str) -> None:
    """Drive a run that is in the bucket: what the controller starts in the cluster."""
    from k8sflow.runtime import start  # noqa: PLC0415  the other commands need no runtime

    with told():
        leave(start.drive(config.load(Path.cwd()), flow, run_id, flowrun))
