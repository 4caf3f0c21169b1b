"""``ui``: the runs of a store in the browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import ConfigurationError

_COMPANION_SECONDS = 60.0
_HELP = """Show the runs in the browser: live, with the output, artifacts and cards of their tasks.

By default, the server only reads, and listens on this machine only, at an address with a random token; or with the one
in K8SFLOW_UI_TOKEN. Needs k8sflow[ui].
"""


def command(scope: Scope) -> click.Command:
    """The command ``ui``."""
    options: list[click.Parameter] = [
        click.Argument(["run"], required=False, metavar="[RUN]"),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=0, help="The port; by default any free one."),
        *_reach_options(),
        click.Option(["--no-browser", "is_quiet"], is_flag=True, help="Only print the address."),
        click.Option(
            ["--unpickle", "may_unpickle"],
            is_flag=True,
            help="Allow artifacts to be loaded, when you ask for it on a page. This runs the code of their classes, "
            "with your rights: only use it if you trust everyone who can write to the store.",
        ),
        click.Option(
            ["--edit-tags", "may_edit_tags"],
            is_flag=True,
            help="Let the tags of a run be changed on its page, where the store may be written.",
        ),
        click.Option(
            ["--exit-when-idle", "idle_minutes"],
            type=click.FloatRange(min=0),
            metavar="MINUTES",
            help="End after this many minutes without a request.",
        ),
        click.Option(["--until-end", "is_companion"], is_flag=True, hidden=True),
    ]

    def callback(run: str | None, idle_minutes: float | None, **options: Any) -> None:
        with errors_shown():
            serve(scope, run, idle_seconds=None if idle_minutes is None else idle_minutes * 60, **options)

    return click.Command(
        "ui", callback=callback, params=options, short_help="Show the runs in the browser.", help=_HELP
    )


def _reach_options() -> list[click.Parameter]:
    """The options for servers that other machines reach."""
    return [
        click.Option(
            ["--listen", "address"],
            default="127.0.0.1",
            show_default=True,
            metavar="ADDRESS",
            help="The address to listen on. Others than this machine's own need --allowed-host.",
        ),
        click.Option(
            ["--allowed-host", "hosts"],
            multiple=True,
            metavar="NAME",
            help="A name by which the server is reached, as it is in the Host header; may be repeated.",
        ),
        click.Option(
            ["--behind-login", "is_behind_login"],
            is_flag=True,
            help="Require no token, because a proxy only lets logged-in users through. "
            "Anyone else who can reach the port can read all runs.",
        ),
    ]


def serve(
    scope: Scope,
    run: str | None,
    *,
    port: int = 0,
    is_quiet: bool = False,
    may_unpickle: bool = False,
    may_edit_tags: bool = False,
    address: str = "127.0.0.1",
    hosts: tuple[str, ...] = (),
    is_behind_login: bool = False,
    idle_seconds: float | None = None,
    is_companion: bool = False,
) -> None:
    """Serves the pages until the process is interrupted.

    With ``is_companion`` it serves a run that was just started: it ends a minute after that was looked at last, but not
    before the run, and its output ends with the address.

    Raises:
        ConfigurationError: The packages of k8sflow[ui] are missing, or the options don't fit together.
        NotFoundError: There is no such run.
    """
    try:
        from k8sflow.ui.app import Ui  # noqa: PLC0415  --help needs no server
        from k8sflow.ui.library import Library  # noqa: PLC0415
        from k8sflow.ui.names import address_of_run  # noqa: PLC0415
        from k8sflow.ui.server import TOKEN_VARIABLE, Reach, UiServer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the page of runs needs the package {error.name}, which is not installed.",
            advice="pip install 'k8sflow[ui]'",
        ) from error
    reach = Reach(address, hosts, "" if is_companion else os.environ.get(TOKEN_VARIABLE, ""), is_behind_login)
    may_end: Callable[[], bool] | None = None
    library = Library(scope.stores())
    path = "/" if scope.flow is None else f"/?flow={quote(scope.flow)}"
    if run is not None:
        found = scope.run(run)
        name = found.run_store.flow, found.id
        path = address_of_run(*name)
        if is_companion:
            may_end, idle_seconds = (lambda: library.has_ended(*name)), _COMPANION_SECONDS
    try:
        server = UiServer(Ui(library, may_unpickle, may_edit_tags), port, idle_seconds, may_end, reach)
    except OSError as error:
        raise click.ClickException(f"Port {port} can't be used: {error.strerror}. Choose another one.") from error
    _say(server.url(path), is_quiet=is_quiet, is_companion=is_companion)
    server.serve()


def _say(url: str, *, is_quiet: bool, is_companion: bool) -> None:
    click.echo(url)
    if is_companion:
        _end_output()
    if not is_quiet and _has_screen():
        click.launch(url)


def _end_output() -> None:
    """Closes the output for the process that waits for its end; a browser that writes something there must not fail."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _has_screen() -> bool:
    """False if only a text browser, or none, could be opened."""
    return sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
