"""``k8sflow``: the commands that need no flow file."""

from __future__ import annotations

from pathlib import Path

import click

import k8sflow
from k8sflow import config, debug_log
from k8sflow.cli import cache, completion, datastore, doctor, env, metaflow_words, output, reading, settings
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown, leave


@click.group()
@click.version_option(k8sflow.__version__, message="k8sflow %(version)s")
def main() -> None:
    """Data and ML flows as plain Python classes: on your machine, and unchanged on Kubernetes.

    A flow has commands of its own: python flow.py --help
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def version(as_json: bool) -> None:  # noqa: FBT001  click calls by name
    """Print the version."""
    if as_json:
        output.print_json({"version": k8sflow.__version__})
    else:
        click.echo(f"k8sflow {k8sflow.__version__}")


@main.command(hidden=True)
@click.argument("flow")
@click.argument("run_id")
@click.option("--flowrun", required=True, help="The FlowRun that owns the run.")
def drive(flow: str, run_id: str, flowrun: str) -> None:
    """Drive a run that is in the bucket; the controller starts this in the cluster."""
    from k8sflow.cli.terminal import Terminal  # noqa: PLC0415  the other commands need no runtime
    from k8sflow.runtime.commands.drive_detached import drive_detached  # noqa: PLC0415

    with errors_shown():
        settings = debug_log.configure(config.load(Path.cwd()))
        leave(drive_detached(settings, flow, run_id, flowrun, Terminal()))


for _command in (
    *reading.commands(),
    cache.group(Scope.everywhere()),
    settings.command,
    doctor.command,
    env.command(Scope.everywhere()),
    completion.command(main, "k8sflow"),
    *metaflow_words.commands(),
):
    main.add_command(_command)
datastore.add_to(main)
