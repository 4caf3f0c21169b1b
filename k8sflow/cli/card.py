"""``card``: the cards of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k8sflow.cli import completion, output
from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import NotFoundError

if TYPE_CHECKING:
    from k8sflow.cards import Card
    from k8sflow.client import Task


def command(scope: Scope) -> click.Group:
    """The commands ``card list``, ``get``, ``view`` and ``server``."""
    group = click.Group("card", help="Look at the cards of tasks.")
    group.add_command(_list_command(scope))
    group.add_command(_get_command(scope))
    group.add_command(_view_command(scope))
    group.add_command(_server_command(scope))
    return group


def _options(scope: Scope) -> list[click.Parameter]:
    return [
        completion.pathspec_argument(scope, is_required=False),
        click.Option(["--id", "card_id"], help="Only the card with this id."),
        click.Option(["--type", "kind"], help="Only cards of this type."),
        click.Option(["--hash", "digest"], help="Only the card whose page has a sha256 that begins so."),
        click.Option(
            ["--follow-resumed/--no-follow-resumed"],
            default=True,
            show_default=True,
            help="For a task that a resumed run took from its origin: show the origin's cards.",
        ),
    ]


def _found(
    scope: Scope,
    pathspec: str | None,
    *,
    card_id: str | None,
    kind: str | None,
    digest: str | None,
    follow_resumed: bool,
) -> list[tuple[Task, Card]]:
    """The cards that a person names, with their tasks."""
    from k8sflow.cards import get_cards  # noqa: PLC0415  --help reads no runs

    return [
        (task, card)
        for task in scope.select(pathspec).tasks()
        for card in get_cards(task, id=card_id, type=kind, follow_resumed=follow_resumed)
        if digest is None or card.hash.startswith(digest)
    ]


def _one(found: list[tuple[Task, Card]]) -> Card:
    """The only card.

    Raises:
        NotFoundError: There is none, or there are several.
    """
    if not found:
        raise NotFoundError(
            "there is no such card.",
            cause="The step has no @card, its task hasn't finished, or the card could not be made.",
            advice="`card list` shows the cards of a run.",
        )
    if len(found) > 1:
        listed = [
            f"  {task.pathspec}  --type {card.type}" + (f" --id {card.id}" if card.id else "")
            for task, card in found[:20]
        ]
        raise NotFoundError(
            f"there are {len(found):,} such cards.",
            advice="\n".join(["Name the task, and the id or the type:", *listed]),
        )
    return found[0][1]


def _list_command(scope: Scope) -> click.Command:
    def callback(pathspec: str | None, as_json: bool, **chosen: Any) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            found = _found(scope, pathspec, **chosen)
            if as_json:
                output.print_json(
                    [
                        {"task": task.pathspec, "type": card.type, "id": card.id, "path": card.path}
                        for task, card in found
                    ]
                )
            elif not found:
                click.echo("No card was found.", err=True)
            else:
                rows = [[task.pathspec, card.type, card.id or "", card.path] for task, card in found]
                output.print_table(["task", "type", "id", "page"], rows)

    params = [*_options(scope), output.JSON_OPTION]
    return click.Command(
        "list",
        callback=callback,
        params=params,
        help="List the cards of a task, a step or a run (by default the latest).",
    )


def _get_command(scope: Scope) -> click.Command:
    def callback(pathspec: str | None, path: str | None, **chosen: Any) -> None:
        with errors_shown():
            page = _one(_found(scope, pathspec, **chosen)).get()
            if path is None:
                click.echo(page.encode("utf-8", "replace"), nl=False)
            else:
                Path(path).write_bytes(page.encode("utf-8", "replace"))

    params: list[click.Parameter] = _options(scope)
    params.insert(1, click.Argument(["path"], required=False, type=click.Path(dir_okay=False)))
    return click.Command("get", callback=callback, params=params, help="Write a card's page to a file, or print it.")


def _view_command(scope: Scope) -> click.Command:
    def callback(pathspec: str | None, **chosen: Any) -> None:
        with errors_shown():
            click.echo(str(_one(_found(scope, pathspec, **chosen)).view()))

    return click.Command("view", callback=callback, params=_options(scope), help="Open a card in the browser.")


def _server_command(scope: Scope) -> click.Command:
    def callback(pathspec: str | None, port: int, is_quiet: bool, **chosen: Any) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            from k8sflow.cards.server import CardServer  # noqa: PLC0415  --help needs no server

            title = scope.select(pathspec).pathspec

            def cards() -> list[tuple[str, Card]]:
                return [(task.pathspec, card) for task, card in _found(scope, title, **chosen)]

            try:
                server = CardServer(f"Cards of {title}", cards, port)
            except OSError as error:
                raise click.ClickException(
                    f"Port {port} can't be used: {error.strerror}. Choose one by --port."
                ) from error
            click.echo(server.url)
            if not is_quiet:
                click.launch(server.url)
            server.serve_forever()

    params = [
        *_options(scope),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=0, help="The port; by default any free one."),
        click.Option(["--no-browser", "is_quiet"], is_flag=True, help="Only print the address."),
    ]
    help_text = "Show the cards of a run, a step or a task in the browser, and follow them while it runs."
    return click.Command("server", callback=callback, params=params, help=help_text)
