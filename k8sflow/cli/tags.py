"""``tag``: the tags of runs."""

from __future__ import annotations

import click

from k8sflow.cli import completion, taglists
from k8sflow.cli.errors import errors_shown
from k8sflow.cli.scope import Scope
from k8sflow.errors import RunError, TagError


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
    group.add_command(taglists.command(scope))
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
