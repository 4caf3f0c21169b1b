"""``tag``: the tags of runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from k8sflow.cli import completion, output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import RunError, TagError

if TYPE_CHECKING:
    from k8sflow.client import Run


def command(scope: Scope) -> click.Group:
    """The commands ``tag add``, ``remove``, ``replace`` and ``list``."""
    group = click.Group("tag", help="Add, remove and list the tags of runs.")
    words = click.Argument(["words"], nargs=-1, required=True, metavar="TAG...")
    pair: list[click.Parameter] = [
        click.Argument(["old"], required=False),
        click.Argument(["new"], required=False),
        click.Option(["--remove"], multiple=True, metavar="TAG", help="Remove this tag too."),
        click.Option(["--add"], multiple=True, metavar="TAG", help="Add this tag too."),
    ]

    def add(run: str | None, words: tuple[str, ...]) -> None:
        _change(scope, run, (), words)

    def remove(run: str | None, words: tuple[str, ...]) -> None:
        _change(scope, run, words, ())

    def replace(
        run: str | None, old: str | None, new: str | None, remove: tuple[str, ...], add: tuple[str, ...]
    ) -> None:
        if (old is None) != (new is None) or not (old or remove or add):
            raise click.UsageError("Give the old tag and the new one; or each with --remove and --add.")
        pair = ((old,), (new,)) if old is not None and new is not None else ((), ())
        _change(scope, run, (*pair[0], *remove), (*pair[1], *add))

    run = _run_parameter(scope)
    for name, callback, more, text in (
        ("add", add, [words], "Give a run tags."),
        ("remove", remove, [words], "Take tags away from a run."),
        ("replace", replace, pair, "Replace tags of a run atomically."),
    ):
        group.add_command(click.Command(name, callback=callback, params=[run, *more], help=text))
    group.add_command(_list_command(scope))
    return group


def checked_tags(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The tags of ``run --tag``, refused before anything is written where one can't be a tag."""
    from k8sflow.storage.tags import checked  # noqa: PLC0415  --help needs no tags

    try:
        return checked(value)
    except TagError as error:
        raise click.BadParameter(f"{error.summary} {error.advice}", context, option) from error


def _run_parameter(scope: Scope) -> click.Parameter:
    complete = completion.runs_in(scope)
    if scope.flow is None:
        return click.Argument(["run"], metavar="FLOW/RUN", shell_complete=complete)
    return click.Option(["--run-id", "run"], help="The run; by default the latest one.", shell_complete=complete)


def _change(scope: Scope, run: str | None, removed: tuple[str, ...], added: tuple[str, ...]) -> None:
    with errors_shown():
        found = scope.run(run)
        if missing := sorted(set(removed) - found.tags):
            raise RunError(
                f"{found.pathspec} has no tag {missing[0]!r}.",
                advice=f"Its tags are {', '.join(map(repr, sorted(found.user_tags)))}."
                if found.user_tags
                else "It has no tags set by a user.",
            )
        found.replace_tags(removed, added)
        click.echo(f"{found.pathspec}: {', '.join(sorted(found.user_tags)) or 'no tags'}")


def _list_command(scope: Scope) -> click.Command:
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
            # There is one tag on each line anyway.
            click.Option(["--flat"], is_flag=True, expose_value=False, hidden=True),
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
