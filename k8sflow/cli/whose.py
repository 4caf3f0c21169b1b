"""The options of commands that look for runs on a cluster or on AWS Batch, and end them."""

from __future__ import annotations

import sys

import click

from k8sflow.cli import completion
from k8sflow.cli.scope import Scope
from k8sflow.errors import RunError


def options(scope: Scope) -> list[click.Parameter]:
    """The options that say whose runs are meant."""
    return [
        click.Option(["--run-id"], help="Only this run.", shell_complete=completion.runs_in(scope)),
        click.Option(["--my-runs"], is_flag=True, help="Only your own runs."),
        click.Option(["--user"], help="Only the runs of this user."),
    ]


def user(run_id: str | None, user: str | None, *, my_runs: bool) -> str | None:
    """The user whose runs are meant; None where a run is named, or everybody's are."""
    given = [name for name, is_given in (("--run-id", run_id), ("--my-runs", my_runs), ("--user", user)) if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other.")
    if not my_runs:
        return user
    from k8sflow.user import current_user  # noqa: PLC0415  --help needs no user

    return current_user()


def confirmed(question: str) -> bool:
    """Asks a question that has to be answered with yes.

    Raises:
        RunError: There is nobody to ask.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise RunError("there is no terminal to ask whether to cancel the run.", advice="Add --yes.")
    return click.confirm(question)
