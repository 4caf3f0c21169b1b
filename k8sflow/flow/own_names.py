"""The names that Metaflow gives a flow besides its language: ``self.name``, ``self.script_name`` and ``self.cmd``."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from k8sflow.errors import RunError


class OwnName:
    """A text about the flow's class, which an attribute that a step sets replaces.

    Args:
        read: Makes the text from the class.
    """

    def __init__(self, read: Callable[[type], str]) -> None:
        self._read = read

    def __get__(self, instance: object | None, owner: type) -> str:
        """The text."""
        return self._read(owner)


def script_name(flow: type) -> str:
    """The base name of the file in which a flow's class is written."""
    return Path(inspect.getfile(flow)).name


def run_command(command: str, files: Mapping[str, str | bytes], output: Sequence[str]) -> bytes | list[bytes]:
    """Writes files, runs a shell command, and reads the files that it wrote.

    Raises:
        RunError: The command failed.
    """
    for path, content in files.items():
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    code = subprocess.call(command, shell=True)  # noqa: S602  a shell command is what the user asks for
    if code:
        raise RunError(f"the command {command!r} failed with exit code {code}.")
    found = [Path(path).read_bytes() for path in output]
    return found[0] if len(found) == 1 else found
