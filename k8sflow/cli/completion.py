"""``completion``: what a shell needs to complete our commands and their options."""

from __future__ import annotations

import re
from pathlib import Path

import click

_SHELLS = ("bash", "zsh", "fish")


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
