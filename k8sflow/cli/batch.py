"""``python flow.py batch``: the runs of a flow as AWS Batch has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from k8sflow import config, debug_log, units
from k8sflow.cli import output, remote_runs
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.request import code_folder

if TYPE_CHECKING:
    from k8sflow.executors.batch.live import LiveJob
    from k8sflow.runtime.commands.on_batch import OnBatch


def command(declared: FlowDefinition) -> click.Group:
    """The commands ``batch list``, ``kill`` and ``describe``."""
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
    group.add_command(_describe_command(scope, batch))
    return group


def _describe_command(scope: Scope, batch: Callable[[], OnBatch]) -> click.Command:
    def callback(place: str, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            from k8sflow.runtime.commands.describe_job import described_jobs  # noqa: PLC0415  as above

            remote = batch()
            found = described_jobs(remote, *remote_runs.named_task(remote.runs, place))
            if as_json:
                output.print_json([job.facts() for job in found])
                return
            for number, job in enumerate(found):
                if number:
                    click.echo()
                for title, text in job.pairs():
                    output.print_pair(title, text)

    return click.Command(
        "describe", callback=callback, params=[remote_runs.task_argument(scope), output.JSON_OPTION],
        short_help="Describe a task's job.",
        help="Describe the job of a task, or each job of a step: state, requests, AWS Batch's reason, and a diagnosis.",
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
