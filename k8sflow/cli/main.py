"""``k8sflow``: the commands that need no flow file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

import k8sflow
from k8sflow import config
from k8sflow.cli.errors import told


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
