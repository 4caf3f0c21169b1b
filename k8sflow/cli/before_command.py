"""The options that Metaflow's users write before the command: ``python flow.py --with kubernetes --no-pylint run``.

Each does what it asks for. Where that holds anyway, it is accepted; other values are refused, with advice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from k8sflow import config

if TYPE_CHECKING:
    from k8sflow.cli.terminal import Terminal

# The number of words after an option that may be before the command, unless they are joined by "=".
_WORDS_AFTER = {
    "--config": 2,
    "--config-value": 2,
    "--branch": 1,
    "--datastore": 1,
    "--datastore-root": 1,
    "--with": 1,
    "--namespace": 1,
    "--environment": 1,
    "--metadata": 1,
    "--package-suffixes": 1,
    "--event-logger": 1,
    "--monitor": 1,
}
_STARTING = ("run", "resume")
_WITH, _NAMESPACE, _QUIET, _ENVIRONMENT = "k8sflow.with", "k8sflow.namespace", "k8sflow.quiet", "k8sflow.environment"


def command_of(arguments: Sequence[str]) -> str:
    """The command of a command line; empty if there is none."""
    return next(iter(arguments[length(arguments) :]), "")


def length(arguments: Sequence[str]) -> int:
    """The number of words before the command of a command line."""
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        position += 1 + _WORDS_AFTER.get(arguments[position], 0)
    return position


def options() -> list[click.Parameter]:
    """The options of the group of a flow's commands."""
    return [
        click.Option(
            ["--with"],
            multiple=True,
            expose_value=False,
            callback=_keep(_WITH),
            metavar="DECORATOR",
            help="As --with of run and resume.",
        ),
        click.Option(["--namespace"], expose_value=False, callback=_keep(_NAMESPACE), help="As of run and resume."),
        click.Option(
            ["--quiet/--not-quiet", "-q"],
            default=None,
            expose_value=False,
            callback=_keep(_QUIET),
            help="Show what tasks print, what goes wrong and how the run ends, and nothing else.",
        ),
        click.Option(
            ["--environment"],
            expose_value=False,
            callback=_environment,
            metavar="pypi|local",
            help="local: run steps with @pypi in this Python, and not in environments of their own.",
        ),
        _accepted("--metadata", {"local"}, _metadata),
        _accepted("--event-logger", {"nullSidecarLogger"}, _sidecar),
        _accepted("--monitor", {"nullSidecarMonitor"}, _sidecar),
        click.Option(
            ["--package-suffixes"],
            expose_value=False,
            callback=_keep_suffixes,
            help="Endings of files that the code package keeps whatever their size, separated by commas.",
        ),
        click.Option(["--pylint/--no-pylint"], default=None, expose_value=False, callback=_pylint, hidden=True),
    ]


def refuse_misplaced(context: click.Context) -> None:
    """Refuses options that the command can't use.

    Raises:
        click.UsageError: There is one.
    """
    command = context.invoked_subcommand
    found: list[tuple[str, tuple[str, ...]]] = [
        (option, _STARTING) for key, option in ((_WITH, "--with"), (_NAMESPACE, "--namespace")) if key in context.meta
    ]
    if context.meta.get(_ENVIRONMENT) == "local":
        found.append(("--environment local", (*_STARTING, "spin")))
    for option, accepted in found:
        if command not in accepted:
            raise click.UsageError(f"{option} is an option of run and resume, and {command} starts no run.", context)


def added_to(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a command's options, with those before the command; for ``--namespace`` the later one holds."""
    meta = click.get_current_context().meta
    given = dict(values)
    given["decorators"] = (*meta.get(_WITH, ()), *given["decorators"])
    given["namespace"] = given["namespace"] or meta.get(_NAMESPACE)
    given["environment"] = environment()
    return given


def environment() -> str | None:
    """The value of ``--environment``."""
    found: str | None = click.get_current_context().meta.get(_ENVIRONMENT)
    return found


def terminal() -> Terminal:
    """The console of a command that runs tasks."""
    from k8sflow.cli.terminal import Terminal  # noqa: PLC0415  --help needs no runtime

    return Terminal(is_quiet=bool(click.get_current_context().meta.get(_QUIET)))


def _keep(key: str) -> Any:
    def keep(context: click.Context, _option: click.Parameter, value: Any) -> None:
        if value:
            context.meta[key] = value

    return keep


def _keep_suffixes(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value:  # the settings are read later
        os.environ[config.variable("package_suffixes")] = value


def _accepted(option: str, values: set[str], advice: Any) -> click.Option:
    """An option with values that hold anyway.

    Args:
        option: Its name.
        values: These values.
        advice: Says for another value why it is refused, and what to use.
    """

    def check(context: click.Context, found: click.Parameter, value: str | None) -> None:
        if value is not None and value not in values:
            raise click.BadParameter(f"{value!r}: {advice(value)}", context, found)

    return click.Option([option], expose_value=False, callback=check, hidden=True)


def _environment(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Keeps it; ``pypi`` and ``conda`` hold anyway, unless the setting ``default_environment`` is another.

    Raises:
        click.BadParameter: It is unknown.
    """
    if value in config.ENVIRONMENTS:
        context.meta[_ENVIRONMENT] = value
    elif value is not None:
        raise click.BadParameter(
            f"{value!r}: k8sflow has pypi, which holds wherever @pypi or @pypi_base is written, and local.",
            context,
            option,
        )


def _metadata(value: str) -> str:
    if value == "service":
        return (
            "k8sflow has no metadata service. The records of runs are in the store; --datastore s3://bucket/prefix "
            "shares them with others."
        )
    return "k8sflow has only the metadata provider local; --datastore names the store of runs."


def _sidecar(_value: str) -> str:
    return "k8sflow has none. K8SFLOW_LOG=debug writes a log, and run --trace records the times of tasks."


def _pylint(context: click.Context, option: click.Parameter, value: bool | None) -> None:  # noqa: FBT001  click calls by position
    if value:
        raise click.BadParameter("k8sflow doesn't run pylint; run it on the file yourself.", context, option)
