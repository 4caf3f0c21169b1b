"""Shows k8sflow's errors at the terminal, and ends commands with the right exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import click

from k8sflow import interrupted
from k8sflow.errors import K8sflowError, RunError
from k8sflow.interrupted import CANCELLED_EXIT_CODE
from k8sflow.task import streams

if TYPE_CHECKING:
    from k8sflow.runtime.core.actions import RunEnd

# A full disk, and a terminal that was closed.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def errors_shown() -> Iterator[None]:
    """Prints a K8sflowError in its three parts, without a traceback, and exits with 1; with 130 after Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a character that a terminal can't show shouldn't fail a command
    if interrupted.came():
        sys.exit(CANCELLED_EXIT_CODE)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(CANCELLED_EXIT_CODE)
    except K8sflowError as error:
        show(error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None or sys.stdout is None:
            raise
        streams.drop(sys.stdout)
        show(RunError(f"cannot write to stdout: {error.strerror}.", advice="Free space, or redirect the output."))
        sys.exit(1)


def execute(
    command: click.Command, advice: Callable[[click.ClickException], str | None] | None = None, **options: Any
) -> NoReturn:
    """Runs a click command as click does, but exits with 130 and prints nothing after Ctrl-C.

    Args:
        command: The command.
        advice: Returns what to write instead, where there is something to say.
        options: Arguments of its ``main``.
    """
    try:
        code = command.main(standalone_mode=False, **options)
    except click.Abort as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            click.echo("Aborted!", err=True)
            sys.exit(1)
        sys.exit(CANCELLED_EXIT_CODE)
    except click.ClickException as error:
        error.show()
        if advice is not None and (sentence := advice(error)) is not None:
            click.echo(sentence, err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def leave(end: RunEnd) -> NoReturn:
    """Ends the process: with 1 after a failed run, with 130 after a cancelled one, else with 0."""
    codes = {"failed": 1, "cancelled": CANCELLED_EXIT_CODE}
    sys.exit(codes.get(end.value, 0))


def show(error: K8sflowError) -> None:
    """Prints the error's parts."""
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {error.titled}", err=True)
    for part in (error.cause, error.advice):
        if part:
            click.echo(part, err=True)
