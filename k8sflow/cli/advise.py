"""``advise``: which requests of a flow's steps are far from what their tasks used."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import click

from k8sflow.cli import output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import RunError, StorageError

if TYPE_CHECKING:
    from k8sflow.client.advice import FlowUse, StepUse


def command(scope: Scope) -> click.Command:
    """The command ``advise``."""
    options: list[click.Parameter] = [
        click.Option(
            ["--limit"], type=click.IntRange(min=1), default=30, show_default=True, help="The number of latest runs."
        ),
        output.JSON_OPTION,
    ]
    if scope.flow is None:
        options.append(click.Argument(["flow"]))

    def callback(limit: int, as_json: bool, flow: str | None = None) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            found = _use(scope, str(flow or scope.flow), limit)
            if as_json:
                output.print_json(_document(found))
            else:
                _print(found)

    return click.Command(
        "advise",
        callback=callback,
        params=options,
        short_help="Show which @resources are far off.",
        help="Show what the steps asked for by @resources and what their tasks used in the latest runs, and which "
        "requests are far off.",
    )


def _use(scope: Scope, flow: str, limit: int) -> FlowUse:
    """The use of resources in the latest runs.

    Raises:
        NotFoundError: The flow has no run.
    """
    from k8sflow.client.advice import FlowUse  # noqa: PLC0415  --help reads no runs

    found = FlowUse()
    for run in itertools.islice(scope.runs_of(flow), limit):
        try:
            ends = run.run_store.all_ends()
            found.add(run.record, {step: of_step.values() for step, of_step in ends.items()})
        except (RunError, StorageError) as error:  # one run that can't be read must not hide the others
            found.unreadable[run.pathspec] = error.summary
    return found


def _document(found: FlowUse) -> dict[str, Any]:
    steps = {
        use.step: {
            "runs": use.runs,
            "tasks": use.tasks,
            "requested": {"memory_bytes": use.requested.memory_bytes, "cores": use.requested.cores},
            "used": {"memory_bytes": use.memory_bytes, "is_partial": use.is_partial, "cores": use.cores},
            "advice": use.advice,
        }
        for use in found.steps.values()
    }
    return {"steps": steps, "unreadable": found.unreadable}


def _print(found: FlowUse) -> None:
    if not any(use.tasks for use in found.steps.values()):
        click.echo("No task of these runs was measured: each task that finishes from now on is.", err=True)
    else:
        head = ["step", "tasks", "memory", "used at most", "cores", "used at most"]
        output.print_table(head, [_row(use) for use in found.steps.values()])
        click.echo()
        lines = [f"{use.step}: {line}." for use in found.steps.values() for line in use.advice]
        for line in lines or ["No request is far off."]:
            click.echo(line)
    for run, why in found.unreadable.items():
        click.echo(f"{run} was left out: {why}", err=True)


def _row(use: StepUse) -> list[str]:
    return [
        use.step,
        f"{use.tasks:,}",
        _megabytes(use.requested.memory_bytes),
        ("≥ " if use.is_partial else "") + _megabytes(use.memory_bytes),
        "" if use.requested.cores is None else f"{use.requested.cores:g}",
        "" if use.cores is None else f"{use.cores:.1f}",
    ]


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f} MB"
