"""``--datastore``: the store of runs for one command, before the command or after it."""

from __future__ import annotations

import os

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
        [_OPTION],
        metavar="LOCATION",
        expose_value=False,
        is_eager=True,  # commands and completions look for runs
        envvar=config.DATASTORE,
        callback=_use,
        help="Keep runs in this folder or s3://bucket/prefix, and look for them there.",
    )


def _use(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Makes it the store of this process and of the processes that it starts."""
    if value is None:
        return
    try:
        os.environ[config.DATASTORE] = roots.datastore(value)
    except ConfigurationError as error:
        words = " ".join(filter(None, (error.summary, error.cause, error.advice)))
        raise click.BadParameter(words, context, option) from error
