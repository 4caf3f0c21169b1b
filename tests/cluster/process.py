"""Running other programs: their output is kept, and an error has its last lines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.cluster.errors import ClusterError

TAIL_LINES = 15


def run(
    command: Sequence[str | Path],
    *,
    doing: str,
    advice: str = "",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: str | IO[bytes] | None = None,
    timeout_seconds: float = 600,
) -> str:
    """Return the standard output of ``command``.

    Args:
        command: Program and arguments; never a shell line.
        doing: What it is for, as in "can't <doing>".
        advice: What a person can do when it fails.
        environment: Variables to add to this process's.
        folder: Working folder.
        stdin: Text, or an open file, for its standard input; nothing by default.
        timeout_seconds: After this it is killed and counts as failed.

    Raises:
        ClusterError: It is missing, was too slow, or exited with another code than 0.
    """
    done = attempt(command, environment=environment, folder=folder, stdin=stdin, timeout_seconds=timeout_seconds)
    if done.returncode != 0:
        raise ClusterError(f"can't {doing}: {describe(command, done)}", cause=tail(done.stderr), advice=advice)
    return done.stdout


def attempt(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: str | IO[bytes] | None = None,
    timeout_seconds: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Return the result of ``command``; a missing program has exit code 127, a slow one 124, as in a shell."""
    text, source = (stdin, subprocess.PIPE) if isinstance(stdin, str) else (None, stdin or subprocess.DEVNULL)
    try:
        with subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=folder,
            env={**os.environ, **(environment or {})},
        ) as process:
            try:
                out, err = process.communicate(text, timeout=timeout_seconds)
            except BaseException as error:  # anything that ends the wait, Ctrl-C included, ends the program too
                process.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                out, err = process.communicate()
                return subprocess.CompletedProcess(command, 124, out, f"{err}\nno end after {timeout_seconds:g} s")
        return subprocess.CompletedProcess(command, process.returncode, out, err)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def describe(command: Sequence[str | Path], done: subprocess.CompletedProcess[str]) -> str:
    """Name the program that failed, and its exit, on one line."""
    words = " ".join(os.fspath(part) for part in command)
    shown = words if len(words) <= 120 else f"{words[:117]}..."
    return f"`{shown}` ended with exit code {done.returncode}."


def tail(text: str) -> str:
    """Return the last lines of a program's output, indented."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-TAIL_LINES:])
