"""``ui``: the runs of a store in the browser."""

from __future__ import annotations

import click

from k8sflow.cli.scope import Scope
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import ConfigurationError

_HELP = """Show the runs in the browser: live, with the output, artifacts and cards of their tasks.

The server only reads, and listens on this machine only, at an address with a random token. Needs k8sflow[ui].
"""


def command(scope: Scope) -> click.Command:
    """The command ``ui``."""
    options: list[click.Parameter] = [
        click.Argument(["run"], required=False, metavar="[RUN]"),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=0, help="The port; by default any free one."),
        click.Option(["--no-browser", "is_quiet"], is_flag=True, help="Only print the address."),
        click.Option(
            ["--unpickle", "may_unpickle"],
            is_flag=True,
            help="Allow artifacts to be loaded, when you ask for it on a page. This runs the code of their classes, "
            "with your rights: only for stores of which you trust everybody who can write to them.",
        ),
        click.Option(
            ["--exit-when-idle", "idle_minutes"],
            type=click.FloatRange(min=0),
            metavar="MINUTES",
            help="End after so many minutes without a request.",
        ),
    ]

    def callback(run: str | None, port: int, is_quiet: bool, may_unpickle: bool, idle_minutes: float | None) -> None:  # noqa: FBT001  click calls by name
        with errors_shown():
            serve(scope, run, port=port, is_quiet=is_quiet, may_unpickle=may_unpickle, idle_minutes=idle_minutes)

    return click.Command(
        "ui", callback=callback, params=options, short_help="Show the runs in the browser.", help=_HELP
    )


def serve(
    scope: Scope, run: str | None, *, port: int, is_quiet: bool, may_unpickle: bool, idle_minutes: float | None
) -> None:
    """Serves the pages until the process is interrupted.

    Raises:
        ConfigurationError: The packages of k8sflow[ui] are missing.
        NotFoundError: There is no such run.
    """
    try:
        from k8sflow.ui.app import Ui  # noqa: PLC0415  --help needs no server
        from k8sflow.ui.library import Library  # noqa: PLC0415
        from k8sflow.ui.names import address_of_run  # noqa: PLC0415
        from k8sflow.ui.server import UiServer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the page of runs needs the package {error.name}, which is not installed.",
            advice="pip install 'k8sflow[ui]'",
        ) from error
    path = "/"
    if run is not None:
        found = scope.run(run)
        path = address_of_run(found.run_store.flow, found.id)
    elif scope.flow is not None:
        path = f"/?flow={scope.flow}"
    try:
        server = UiServer(Ui(Library(scope.stores()), may_unpickle), port, idle_minutes and idle_minutes * 60)
    except OSError as error:
        raise click.ClickException(
            f"Port {port} can't be used: {error.strerror}. Choose another one by --port."
        ) from error
    click.echo(server.url(path))
    if not is_quiet:
        click.launch(server.url(path))
    server.serve()
