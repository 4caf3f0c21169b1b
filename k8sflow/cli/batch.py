"""``python flow.py batch``: the runs of a flow as AWS Batch has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from k8sflow import config, debug_log, units
from k8sflow.cli import output, remote_runs
from k8sflow.cli.scope import Scope
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.request import code_folder

if TYPE_CHECKING:
    from k8sflow.executors.batch.live import LiveJob
    from k8sflow.runtime.commands.on_batch import OnBatch


def command(declared: FlowDefinition) -> click.Group:
    """The commands ``batch list`` and ``kill``."""
    scope = Scope.of_flow(declared.flow)

    def batch() -> OnBatch:
        from k8sflow.runtime.commands.on_batch import OnBatch  # noqa: PLC0415  --help needs no AWS

        return OnBatch.of(declared, debug_log.configure(config.load(code_folder(declared.flow))))

    group = click.Group("batch", help="Look at the jobs of this flow's runs on AWS Batch, and end runs.")
    ended, where = "Also jobs that ended not long ago.", "on AWS Batch"
    group.add_command(
        remote_runs.list_command(
            scope, batch, document=_document, show=_print_jobs, noun="job", ended=ended, where=where
        )
    )
    effect = "Their jobs are terminated, and the drivers end them as cancelled."
    group.add_command(remote_runs.kill_command(scope, batch, noun="job", effect=effect))
    return group


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


def _print_jobs(jobs: Sequence[LiveJob]) -> None:
    now = time.time()
    rows = []
    for job in jobs:
        first, age = job.tasks.template, units.duration(max(0.0, now - job.created))
        task = f"{first.name.step}/{job.tasks.ids}"
        rows.append([job.run, task, str(first.attempt), job.state, age, job.id])
    output.print_table(["run", "task", "attempt", "state", "age", "job"], rows)
    for reason in dict.fromkeys(job.why for job in jobs if job.why and not job.is_over):
        click.secho(f"Waiting: {reason}", fg="yellow")
