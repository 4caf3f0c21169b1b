"""The commands ``list`` and ``kill`` for the runs on a cluster or on AWS Batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from k8sflow.cli import completion, output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import NotFoundError, RunError

if TYPE_CHECKING:
    from k8sflow.runtime.commands.remote_runs import RemoteRuns, Work
    from k8sflow.runtime.lookup import Runs
    from k8sflow.storage.run_store import RunStore

_Work = TypeVar("_Work", bound="Work")


def list_command(
    scope: Scope,
    remote: Callable[[], RemoteRuns[_Work]],
    *,
    document: Callable[[_Work], dict[str, Any]],
    show: Callable[[Sequence[_Work]], None],
    noun: str,
    ended: str,
    where: str,
) -> click.Command:
    """The command that lists the work for a flow's runs.

    Args:
        scope: The flow.
        remote: Opens its runs.
        document: What ``--json`` prints of one piece of work.
        show: Prints all of it for people.
        noun: The work in a word, ``task`` or ``job``.
        ended: The help of ``--all``.
        where: The system, as in ``in the cluster``.
    """

    def callback(run_id: str | None, user: str | None, my_runs: bool, ended: bool, as_json: bool) -> None:  # noqa: FBT001
        with errors_shown():
            from k8sflow.runtime.commands.remote_runs import selected  # noqa: PLC0415  --help needs no runtime

            owner = _owner(run_id, user, my_runs=my_runs)
            found = selected(remote(), run_id, owner, ended=ended)
            if as_json:
                output.print_json([document(work) for work in found])
            elif found:
                show(found)
            else:
                click.echo(f"No {noun} was found." if ended else f"No unfinished {noun} was found.", err=True)

    options = [*_options(scope), click.Option(["--all", "ended"], is_flag=True, help=ended), output.JSON_OPTION]
    return click.Command(
        "list",
        callback=callback,
        params=options,
        short_help=f"List unfinished {noun}s {where}.",
        help=f"List the unfinished {noun}s of this flow's runs {where}.",
    )


def kill_command(scope: Scope, remote: Callable[[], RemoteRuns[Work]], *, noun: str, effect: str) -> click.Command:
    """The command that ends runs.

    Args:
        scope: The flow.
        remote: Opens its runs.
        noun: The work in a word, ``task`` or ``job``.
        effect: The sentence of the help about their work.
    """

    def callback(run_id: str | None, user: str | None, my_runs: bool, yes: bool) -> None:  # noqa: FBT001
        with errors_shown():
            from k8sflow.cli.terminal import Terminal  # noqa: PLC0415  as above
            from k8sflow.runtime.commands.remote_runs import kill_all, runs_to_kill  # noqa: PLC0415  as above

            owner = _owner(run_id, user, my_runs=my_runs)
            opened = remote()
            runs = runs_to_kill(opened, run_id, owner)
            if not runs:
                click.echo(f"No run with unfinished {noun}s was found.", err=True)
                return
            names = ", ".join(run.pathspec for run in runs)
            if yes or _confirmed(f"Cancel {names}?"):
                kill_all(opened, runs, Terminal())

    return click.Command(
        "kill",
        callback=callback,
        params=[*_options(scope), click.Option(["--yes", "-y"], is_flag=True, help="Don't ask.")],
        short_help="Cancel runs, whichever machine drives them.",
        help=f"Cancel runs, whichever machine drives them: by default your latest one. {effect}",
    )


def task_argument(scope: Scope) -> click.Parameter:
    """The argument that names a task or a step of a run."""
    return click.Argument(["place"], metavar="[RUN/]STEP[/TASK]", shell_complete=completion.names_in(scope))


def named_task(runs: Runs, name: str) -> tuple[RunStore, str, str | None]:
    """The run, the step and the id of the task that a person has named; no id where only the step was named.

    Raises:
        NotFoundError: There is no such run or step, or no step was named.
    """
    reference = runs.resolve(name, runs.latest_own)
    run = reference.run
    if reference.step is None or reference.artifact is not None:
        raise NotFoundError(f"{name!r} is not a task.", advice="Name one, as STEP/TASK or RUN/STEP/TASK.")
    known = run.read().steps
    if reference.step not in known:
        raise NotFoundError(f"{run.pathspec} has no step {reference.step!r}.", advice=f"Its steps: {', '.join(known)}.")
    return run, reference.step, reference.task


def _options(scope: Scope) -> list[click.Parameter]:
    """The options that say whose runs are meant."""
    return [
        click.Option(["--run-id"], help="Only this run.", shell_complete=completion.runs_in(scope)),
        click.Option(["--my-runs"], is_flag=True, help="Only your own runs."),
        click.Option(["--user"], help="Only the runs of this user."),
    ]


def _owner(run_id: str | None, user: str | None, *, my_runs: bool) -> str | None:
    """The user whose runs are meant; None where a run is named, or everybody's are."""
    given = [name for name, is_given in (("--run-id", run_id), ("--my-runs", my_runs), ("--user", user)) if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other.")
    if not my_runs:
        return user
    from k8sflow.user import current_user  # noqa: PLC0415  --help needs no user

    return current_user()


def _confirmed(question: str) -> bool:
    """Asks a question that has to be answered with yes.

    Raises:
        RunError: There is nobody to ask.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise RunError("there is no terminal to ask whether to cancel the run.", advice="Add --yes.")
    return click.confirm(question)
