"""``env``: the environments of steps on this machine."""

from __future__ import annotations

import click

from k8sflow import units
from k8sflow.cli.show_errors import errors_shown

_DAYS = 30


@click.group("env")
def command() -> None:
    """Look after the environments of steps with @pypi on this machine."""


@command.command()
@click.option(
    "--unused-for",
    "days",
    type=click.IntRange(min=0),
    default=_DAYS,
    show_default=True,
    help="Remove what no run has used for so many days; 0 for everything.",
)
def prune(days: int) -> None:
    """Remove environments and wheels from the cache. A run that needs one creates it again, from its lock."""
    from k8sflow.environments.pruning import prune as remove  # noqa: PLC0415  --help needs none of it

    with errors_shown():
        count, size = remove(days)
        things = f"{count} environment{'' if count == 1 else 's'}"
        click.echo(f"Removed {things} and {units.size(size)} of files. `uv cache prune` removes uv's own cache.")
