"""``completion``: the code with which a shell completes commands and their options."""

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
    """Completes a run: its id, after its flow if there are several."""
    return _completer(lambda typed: _runs(scope, typed))


def steps_with_packages(scope: Scope) -> Complete:
    """Completes a step that has packages of its own, of the run that was named before it."""

    def complete(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
        with contextlib.suppress(K8sflowError):
            found = scope.run(context.params.get("run")).record.environments
            return [step for step in found if step.startswith(typed)]
        return []

    return complete


def names_in(scope: Scope) -> Complete:
    """Completes a name: a run, a step of the latest one, or the next part of a pathspec."""

    def names(typed: str) -> Iterator[str]:
        yield from _runs(scope, typed)
        above = typed.rpartition("/")[0]
        with contextlib.suppress(K8sflowError):  # what doesn't exist can't be completed
            selection = scope.select(above or None)
            if selection.task is None:
                yield from (f"{above}/{name}" if above else name for name in selection.names_below())

    return _completer(names)


def pathspec_argument(scope: Scope, form: str = "run/step/task", *, is_required: bool) -> click.Argument:
    """The argument ``pathspec``: a run or a part of it.

    Args:
        scope: The runs.
        form: Its form in a flow's own commands; in others it begins with the flow.
        is_required: Whether the latest run is not meant where it is missing.
    """
    full = form if scope.flow is not None else f"flow/{form}"
    metavar = full if is_required else f"[{full}]"
    return click.Argument(["pathspec"], metavar=metavar, required=is_required, shell_complete=names_in(scope))


def _completer(names: Callable[[str], Iterable[str]]) -> Complete:
    """The function that click calls, made from one that takes the start of a word and gives the names that fit."""

    def complete(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
        return [name for name in dict.fromkeys(names(typed)) if name.startswith(typed)]

    return complete


def _runs(scope: Scope, typed: str) -> list[str]:
    """The runs that fit, the latest first; the flows, if none is named yet."""
    flow, slash, _ = typed.partition("/")
    try:
        if scope.flow is not None:
            return [] if slash else [run.id for run in scope.runs_of(scope.flow)]
        return [run.pathspec for run in scope.runs_of(flow)] if slash else scope.flows()
    except K8sflowError:  # a completion can't show a message
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
        "completion",
        callback=callback,
        params=[click.Argument(["shell"], type=click.Choice(_SHELLS))],
        help=f'Print the code for shell completion. Usage: eval "$({program} completion bash)".',
    )


def program_of(file: str) -> str:
    """The name of a flow's file in a shell, if it is executable and on the PATH."""
    return Path(file).name


def variable(program: str) -> str:
    """The variable by which the shell asks for completions."""
    return f"_{re.sub(r'[^A-Za-z0-9]', '_', program)}_COMPLETE".upper()
