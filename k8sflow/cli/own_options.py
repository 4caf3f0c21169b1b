"""Options of commands that make way for a flow's parameters of the same name.

A flow may have a parameter named like an option of k8sflow's, such as ``config``: ``--config`` after the command is the
parameter then, and the option is ``--k8sflow-config``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import click

from k8sflow.cli import before_command
from k8sflow.flow.parameters import Parameter

_PREFIX = "--k8sflow-"


def spellings(parameter: Parameter) -> list[str]:
    """The options that give a parameter; those of a flag begin with ``--no-`` too."""
    names = dict.fromkeys([parameter.name, parameter.name.replace("_", "-")])
    return [f"--{name}/--no-{name}" if parameter.is_flag else f"--{name}" for name in names]


def making_way(options: Sequence[click.Parameter], parameters: Iterable[Parameter]) -> list[click.Parameter]:
    """The options of a command, under names that no parameter has.

    Args:
        options: The command's own options and arguments.
        parameters: The flow's parameters.
    """
    taken = _taken(parameters)
    return [_renamed(option, taken) if isinstance(option, click.Option) else option for option in options]


def config_words(flow: type, words: Sequence[str]) -> list[str]:
    """A command line in which ``--config`` and ``--config-value`` are the options that give configs, never parameters.

    Args:
        flow: The flow's class.
        words: The command line, without the program.
    """
    members = [member for base in flow.__mro__ for member in vars(base).values() if isinstance(member, Parameter)]
    options = {"--config", "--config-value"} & _taken(member for member in members if member.k8sflow_problem is None)
    if not options:
        return list(words)
    own = {_instead(option): option for option in options}
    start = before_command.length(words)
    return [*words[:start], *(own.get(word, word) for word in words[start:] if word not in options)]


def _taken(parameters: Iterable[Parameter]) -> set[str]:
    return {name for parameter in parameters for written in spellings(parameter) for name in written.split("/")}


def _renamed(option: click.Option, taken: set[str]) -> click.Option:
    if taken.isdisjoint([*option.opts, *option.secondary_opts]):
        return option
    found = copy.copy(option)
    found.opts = [_instead(name) if name in taken else name for name in option.opts]
    found.secondary_opts = [_instead(name) if name in taken else name for name in option.secondary_opts]
    return found


def _instead(option: str) -> str:
    return _PREFIX + option.removeprefix("--")
