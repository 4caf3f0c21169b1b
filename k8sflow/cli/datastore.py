"""``--datastore``: the store of runs for one command, before the command or after it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from k8sflow import config, roots
from k8sflow.errors import ConfigurationError

_OPTION = "--datastore"


def add_to(group: click.Group) -> None:
    """Gives the option to a group and to all its commands, except one that has another option of this name."""
    group.params.append(_option())
    for command in group.commands.values():
        if isinstance(command, click.Group):
            add_to(command)
        elif not command.hidden and not any(_OPTION in param.opts for param in command.params):
            command.params.append(_option())


def _option() -> click.Option:
    return click.Option(
        [_OPTION, "--datastore-root"],
        metavar="LOCATION",
        multiple=True,  # Metaflow has a kind of store and its location as two options
        expose_value=False,
        is_eager=True,  # commands and completions look for runs
        callback=_use,
        help="Keep runs in this folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and look for "
        "them there.",
    )


def _use(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> None:
    """Makes it the store of this process and of the processes that it starts."""
    in_environment = os.environ.get(config.DATASTORE)
    given = values or ((in_environment,) if in_environment else ())
    if not given:
        return
    try:
        found = roots.datastore(given, _root_of_settings)
    except ConfigurationError as error:
        words = " ".join(filter(None, (error.summary, error.cause, error.advice)))
        raise click.BadParameter(words, context, option) from error
    if found is not None:
        os.environ[config.DATASTORE] = found


def _root_of_settings() -> str:
    return config.load(Path(sys.argv[0]).resolve().parent).root or ""
