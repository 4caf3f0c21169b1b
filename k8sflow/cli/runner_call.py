"""``python flow.py run --k8sflow-call FILE``: how ``Runner`` gives keyword arguments to a command, which knows them.

Only the flow's own process knows its parameters: whether ``[1, 2]`` is a JSON value, a list of texts or an option that
is given twice. So the arguments travel as they were written in Python, and become a command line here. They travel in
a file: the system starts no process with an argument of more than 128 KiB (MAX_ARG_STRLEN, execve(2)).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from k8sflow.errors import ParameterError
from k8sflow.flow.include_file import IncludeFile
from k8sflow.flow.parameters import JSONType, Parameter
from k8sflow.flow.problems import did_you_mean

_CALL = "--k8sflow-call"
# Python has no keyword argument called "with"; users know this name for it. So it is for the step of resume.
_ALIASES = {"decospecs": "with", "step_to_rerun": "step"}


@dataclass(frozen=True)
class RunnerCall:
    """A request of a ``Runner``.

    Args:
        words: The words before the command: options that are needed before the flow's other options are known.
        command: The command's name.
        values: Its keyword arguments.
    """

    words: tuple[str, ...]
    command: str
    values: Mapping[str, Any]


def received(arguments: Sequence[str]) -> RunnerCall | None:
    """The request of the ``Runner`` that started this process; None for a command line that a person typed."""
    match arguments:
        case [command, option, file] if option == _CALL:
            document = json.loads(Path(file).read_text(encoding="utf-8"))
            return RunnerCall(tuple(document["words"]), command, document["values"])
    return None


def expanded(group: click.Group, call: RunnerCall, parameters: Mapping[str, Parameter]) -> list[str]:
    """A call as a command line, without the program.

    Args:
        group: The flow's commands; the call's is one of them.
        call: The call.
        parameters: The flow's parameters, by attribute.

    Raises:
        ParameterError: The command has no such option.
    """
    name = call.command
    command = group.commands[name]
    known = {**_by_name(group.params), **_by_name(command.params)}
    in_front: list[str] = []
    behind: list[str] = []
    for key, value in call.values.items():
        option = known.get(_ALIASES.get(key, key).replace("-", "_"))
        if option is None:
            names = sorted({spelling for found in known.values() for spelling in _spellings(found)})
            raise ParameterError(
                f"{name} has no option {key!r}.",
                advice=f"{did_you_mean(key, names)} Its options are {', '.join(names)}.".strip(),
            )
        if value is not None:
            parameter = parameters.get(str(option.name).removeprefix("parameter_"))
            is_own = parameter is not None and str(option.name).startswith("parameter_")
            written = _written(option, _text(parameter, value) if is_own and parameter is not None else value)
            (behind if option in command.params else in_front).extend(written)
    return [*call.words, *in_front, name, *behind]


def _by_name(params: Sequence[click.Parameter]) -> dict[str, click.Parameter]:
    return {spelling: param for param in params for spelling in (*_spellings(param), _internal(param))}


def _spellings(param: click.Parameter) -> list[str]:
    """The names of an option in Python: as on the command line, with _ for -."""
    if isinstance(param, click.Argument):
        return [str(param.name)]
    return [spelling.lstrip("-").replace("-", "_") for spelling in param.opts]


def _internal(param: click.Parameter) -> str:
    """The name under which the command has an option's value, such as ``tags`` for ``--tag``; or its attribute."""
    return str(param.name).removeprefix("parameter_")


def _text(parameter: Parameter, value: Any) -> Any:
    """A parameter's value as it is written on the command line.

    Raises:
        ParameterError: It would be read as another one.
    """
    if parameter.is_flag:
        return parameter.convert(value, "the value")  # "false" is a true text, and means the contrary
    if isinstance(value, str):
        return value
    if parameter.multiple and isinstance(value, list):
        return [json.dumps(part) if isinstance(part, list | dict | bool) else str(part) for part in value]
    if parameter.separator is not None and isinstance(value, list) and not isinstance(parameter, IncludeFile):
        if parts := [part for part in map(str, value) if parameter.separator in part or value == [""]]:
            raise ParameterError(
                f"Parameter {parameter.name!r}: {parts[0]!r} can't be a part of the list.",
                cause=f"The parts are written with {parameter.separator!r} between; an empty text is an empty list.",
                advice="Declare the parameter with another separator, or with type=JSONType.",
            )
        return parameter.separator.join(map(str, value))
    if parameter.kind is JSONType or isinstance(value, (list, dict, bool)):
        return json.dumps(value)
    return str(value)


def _written(option: click.Parameter, value: Any) -> Iterator[str]:
    """An option with its value as words of a command line."""
    if isinstance(option, click.Argument):
        yield str(value)
        return
    long = next((spelling for spelling in option.opts if spelling.startswith("--")), option.opts[0])
    if isinstance(option, click.Option) and option.is_flag:
        if value:
            yield long
        elif option.secondary_opts:
            yield option.secondary_opts[0]
        return
    for each in value if option.multiple and isinstance(value, list) else [value]:
        yield f"{long}={each}"
