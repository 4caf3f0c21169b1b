"""``completion``: what a shell needs to complete our commands and their options."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from k8sflow.cli.scope import Scope
from k8sflow.errors import K8sflowError
from k8sflow.flow.spec import FlowSpec, steps

_SHELLS = ("bash", "zsh", "fish")


Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def steps_of(flow: type[FlowSpec]) -> Complete:
    """Completes the name of a step."""
    return _completer(lambda _: steps(flow))


def runs_in(scope: Scope) -> Complete:
    """Completes a run: its id, and where several flows are meant the flow in front."""
    return _completer(lambda begun: _runs(scope, begun))


def names_in(scope: Scope) -> Complete:
    """Completes a name: a run, a step of the latest one, or the next part of what is there already."""

    def names(begun: str) -> Iterator[str]:
        yield from _runs(scope, begun)
        above = begun.rpartition("/")[0]
        with contextlib.suppress(K8sflowError):  # in what is not there, there is nothing to complete
            place = scope.select(above or None)
            if place.task is None:
                yield from (f"{above}/{name}" if above else name for name in place.names_below())

    return _completer(names)


def _completer(names: Callable[[str], Iterable[str]]) -> Complete:
    """What click calls, from what gives the names that may be meant by a word's beginning."""

    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        return [name for name in dict.fromkeys(names(begun)) if name.startswith(begun)]

    return complete


def _runs(scope: Scope, begun: str) -> list[str]:
    """The runs that may be meant, the latest first; the flows, where none is named yet."""
    flow, slash, _ = begun.partition("/")
    try:
        if scope.flow is not None:
            return [] if slash else [run.id for run in scope.runs_of(scope.flow)]
        return [run.pathspec for run in scope.runs_of(flow)] if slash else scope.flows()
    except K8sflowError:  # a shell that completes has no place for a message
        return []


def command(root: click.Command, program: str) -> click.Command:
    """The command ``completion``.

    Args:
        root: What is completed.
        program: How it is called in a shell.
    """

    def callback(shell: str) -> None:
        from click.shell_completion import get_completion_class  # noqa: PLC0415  the other commands need it never

        kind = get_completion_class(shell)
        assert kind is not None
        click.echo(kind(root, {}, program, variable(program)).source())

    return click.Command(
        "completion", callback=callback, params=[click.Argument(["shell"], type=click.Choice(_SHELLS))],
        help=f'Let a shell complete commands. Use it so: eval "$({program} completion bash)".',
    )  # fmt: skip


def program_of(file: str) -> str:
    """How a flow's file is called in a shell, once it may be executed and is on the PATH."""
    return Path(file).name


def variable(program: str) -> str:
    """The variable by which the shell asks for completions."""
    return f"_{re.sub(r'[^A-Za-z0-9]', '_', program)}_COMPLETE".upper()
