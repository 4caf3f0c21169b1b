"""``tag list``: the tags of a run, or of many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from k8sflow.cli import completion, output
from k8sflow.cli.errors import errors_shown
from k8sflow.cli.scope import Scope

if TYPE_CHECKING:
    from k8sflow.client import Run


def command(scope: Scope) -> click.Command:
    """The command ``tag list``."""

    def callback(
        run: str | None,
        option: str | None = None,
        hide_system_tags: bool = False,  # noqa: FBT001, FBT002  click calls by name
        as_json: bool = False,  # noqa: FBT001, FBT002  as above
        **which: bool,
    ) -> None:
        if option is not None and run is not None:
            raise click.UsageError("Name the run once: as RUN, or by --run-id.")
        named, is_one = run if option is None else option, not any(which.values())
        if option is not None and not is_one:
            raise click.UsageError("--run-id is for the tags of one run.")
        with errors_shown():
            if is_one:
                _show_one(scope.run(named), with_system=not hide_system_tags, as_json=as_json)
                return
            tagged = _tagged(_runs(scope, named, only_mine=which["mine"]), with_system=not hide_system_tags)
            _show_all(tagged, by_tag=which["by_tag"], by_run=which["by_run"], as_json=as_json)

    what = click.Argument(
        ["run"],
        required=scope.flow is None,
        metavar="[RUN]" if scope.flow else "FLOW[/RUN]",
        shell_complete=completion.runs_in(scope),
    )
    by_name = [
        click.Option(
            ["--run-id", "option"], help="The run; by default the latest one.", shell_complete=completion.runs_in(scope)
        )
    ]
    return click.Command(
        "list",
        callback=callback,
        params=[
            what,
            *(by_name if scope.flow is not None else []),
            click.Option(["--all", "everyones"], is_flag=True, help="The tags of all runs of the flow."),
            click.Option(["--my-runs", "mine"], is_flag=True, help="The tags of all your runs."),
            click.Option(["--group-by-run", "by_run"], is_flag=True, help="List all runs, each with its tags."),
            click.Option(["--group-by-tag", "by_tag"], is_flag=True, help="List all tags, each with its runs."),
            click.Option(["--hide-system-tags"], is_flag=True, help="Show only tags that people added."),
            output.JSON_OPTION,
        ],
        help="List the tags of a run, or of many, one per line.",
    )


def _runs(scope: Scope, named: str | None, *, only_mine: bool) -> list[Run]:
    """The runs of the flow, the latest first."""
    name = scope.flow if scope.flow is not None else named
    if name is None or (scope.flow is not None and named not in {None, name}) or "/" in name:
        raise click.UsageError(f"{named} is one run, and all are asked for.")
    return list(scope.runs_of(name, everyone=not only_mine))


def _tagged(runs: Iterable[Run], *, with_system: bool) -> dict[str, list[str]]:
    """The tags of each run, by its pathspec; the user's first."""
    return {run.pathspec: [*sorted(run.user_tags), *(sorted(run.system_tags) if with_system else ())] for run in runs}


def _show_one(run: Run, *, with_system: bool, as_json: bool) -> None:
    user, system = sorted(run.user_tags), sorted(run.system_tags) if with_system else []
    if as_json:
        output.print_json({"run": run.pathspec, "tags": user, **({"system_tags": system} if with_system else {})})
        return
    for tag in user:
        click.echo(tag)
    for tag in system:
        click.echo(click.style(tag, dim=True))


def _show_all(tagged: dict[str, list[str]], *, by_tag: bool, by_run: bool, as_json: bool) -> None:
    if by_tag and by_run:
        raise click.UsageError("Tags are grouped by run or by tag.")
    runs_of: dict[str, list[str]] = {}
    for run, tags in tagged.items():
        for tag in tags:
            runs_of.setdefault(tag, []).append(run)
    groups = tagged if by_run else dict(sorted(runs_of.items()))
    if as_json:
        output.print_json(groups if by_tag or by_run else list(groups))
        return
    for head, words in groups.items():
        click.echo(f"{head}: {', '.join(words)}" if by_tag or by_run else head)
