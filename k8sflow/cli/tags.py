"""``tag``: words to find runs by."""

from __future__ import annotations

import click

from k8sflow.cli import output
from k8sflow.cli.errors import told
from k8sflow.cli.places import Reach
from k8sflow.errors import RunError


def command(reach: Reach) -> click.Group:
    """The commands ``tag add``, ``remove``, ``replace`` and ``list``."""
    group = click.Group("tag", help="Give runs tags, take them away, and list them.")
    words = click.Argument(["words"], nargs=-1, required=True, metavar="TAG...")
    pair: list[click.Parameter] = [click.Argument(["old"]), click.Argument(["new"])]

    def add(run: str | None, words: tuple[str, ...]) -> None:
        _change(reach, run, (), words)

    def remove(run: str | None, words: tuple[str, ...]) -> None:
        _change(reach, run, words, ())

    def replace(run: str | None, old: str, new: str) -> None:
        _change(reach, run, (old,), (new,))

    def show(run: str | None, as_json: bool) -> None:  # noqa: FBT001  click calls by name
        _list(reach, run, as_json=as_json)

    run = _run_parameter(reach)
    for name, callback, more, text in (
        ("add", add, [words], "Give a run tags."),
        ("remove", remove, [words], "Take tags away from a run."),
        ("replace", replace, pair, "Replace a tag of a run. Nobody sees the run without both."),
        ("list", show, [output.JSON_OPTION], "List the tags of a run."),
    ):
        group.add_command(click.Command(name, callback=callback, params=[run, *more], help=text))
    return group


def checked_tags(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The tags of ``run --tag``, refused before anything is written where one can't be a tag."""
    from k8sflow.storage.tags import TagError, checked  # noqa: PLC0415  --help needs no tags

    try:
        return checked(value)
    except TagError as error:
        raise click.BadParameter(f"{error.summary} {error.advice}", context, option) from error


def _run_parameter(reach: Reach) -> click.Parameter:
    if reach.flow is None:
        return click.Argument(["run"], metavar="FLOW/RUN")
    return click.Option(["--run-id", "run"], help="The run; by default the latest one.")


def _change(reach: Reach, run: str | None, removed: tuple[str, ...], added: tuple[str, ...]) -> None:
    with told():
        found = reach.run(run)
        if missing := sorted(set(removed) - found.tags):
            raise RunError(
                f"{found.pathspec} has no tag {missing[0]!r}.",
                advice=f"Its tags are {', '.join(map(repr, sorted(found.user_tags))) or 'none'}.",
            )
        found.replace_tags(removed, added)
        click.echo(f"{found.pathspec}: {', '.join(sorted(found.user_tags)) or 'no tags'}")


def _list(reach: Reach, run: str | None, *, as_json: bool) -> None:
    with told():
        found = reach.run(run)
        user, system = sorted(found.user_tags), sorted(found.system_tags)
        if as_json:
            output.print_json({"run": found.pathspec, "tags": user, "system_tags": system})
            return
        for tag in user:
            click.echo(tag)
        for tag in system:
            click.echo(click.style(tag, dim=True))
