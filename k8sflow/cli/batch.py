"""``python flow.py batch``: the runs of a flow as AWS Batch has them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from k8sflow import config, debug_log, units
from k8sflow.cli import output, whose
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.request import code_folder

if TYPE_CHECKING:
    from k8sflow.runtime.commands.on_batch import LiveJob, OnBatch


def command(declared: FlowDefinition) -> click.Group:
    """The commands ``batch list`` and ``kill``."""
    scope = Scope.of_flow(declared.flow)
    group = click.Group("batch", help="Look at the jobs of this flow's runs on AWS Batch, and end runs.")
    group.add_command(_list_command(declared, scope))
    group.add_command(_kill_command(declared, scope))
    return group


def _batch(declared: FlowDefinition) -> OnBatch:
    from k8sflow.runtime.commands.on_batch import OnBatch  # noqa: PLC0415  --help needs no AWS

    return OnBatch.of(declared, debug_log.configure(config.load(code_folder(declared.flow))))


def _list_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(run_id: str | None, user: str | None, my_runs: bool, ended: bool, as_json: bool) -> None:  # noqa: FBT001
        with errors_shown():
            from k8sflow.runtime.commands.on_batch import selected  # noqa: PLC0415  as above

            owner = whose.user(run_id, user, my_runs=my_runs)
            jobs = selected(_batch(declared), run_id, owner, ended=ended)
            if as_json:
                output.print_json([_document(job) for job in jobs])
            elif jobs:
                _print_jobs(jobs)
            else:
                click.echo("No job was found." if ended else "No unfinished job was found.", err=True)

    return click.Command(
        "list", callback=callback,
        params=[
            *whose.options(scope),
            click.Option(["--all", "ended"], is_flag=True, help="Also jobs that ended not long ago."),
            output.JSON_OPTION,
        ],
        short_help="List unfinished jobs on AWS Batch.",
        help="List the unfinished jobs of this flow's runs on AWS Batch.",
    )  # fmt: skip


def _document(job: LiveJob) -> dict[str, Any]:
    first = job.tasks.template
    return {
        "run": job.run,
        "step": first.name.step,
        "task": job.tasks.ids,
        "attempt": first.attempt,
        "state": job.state,
        "why": job.why or None,
        "job": job.id,
        "created": output.utc_time(job.created),
    }


def _print_jobs(jobs: list[LiveJob]) -> None:
    now = time.time()
    rows = []
    for job in jobs:
        first, age = job.tasks.template, units.duration(max(0.0, now - job.created))
        task = f"{first.name.step}/{job.tasks.ids}"
        rows.append([job.run, task, str(first.attempt), job.state, age, job.id])
    output.print_table(["run", "task", "attempt", "state", "age", "job"], rows)
    for reason in dict.fromkeys(job.why for job in jobs if job.why and not job.is_over):
        click.secho(f"Waiting: {reason}", fg="yellow")


def _kill_command(declared: FlowDefinition, scope: Scope) -> click.Command:
    def callback(run_id: str | None, user: str | None, my_runs: bool, yes: bool) -> None:  # noqa: FBT001
        with errors_shown():
            from k8sflow.cli.terminal import Terminal  # noqa: PLC0415  --help needs no runtime
            from k8sflow.runtime.commands import on_batch  # noqa: PLC0415  as above

            owner = whose.user(run_id, user, my_runs=my_runs)
            batch = _batch(declared)
            runs = on_batch.runs_to_kill(batch, run_id, owner)
            if not runs:
                click.echo("No run with unfinished jobs was found.", err=True)
                return
            names = ", ".join(run.pathspec for run in runs)
            if yes or whose.confirmed(f"Cancel {names}?"):
                for run in runs:
                    on_batch.kill(batch, run, Terminal())

    return click.Command(
        "kill", callback=callback,
        params=[*whose.options(scope), click.Option(["--yes", "-y"], is_flag=True, help="Don't ask.")],
        short_help="Cancel runs, whichever machine drives them.",
        help="Cancel runs, whichever machine drives them: by default your latest one. Their jobs are terminated, and "
        "the drivers end them as cancelled.",
    )  # fmt: skip
