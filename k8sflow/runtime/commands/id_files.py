"""Files into which a command writes what it has started, for the program that has called it."""

from __future__ import annotations

import os
from pathlib import Path

from k8sflow.errors import RunError


def check(path: Path, what: str) -> None:
    """Makes sure that the file can be written, while there is nothing that would be left behind.

    Args:
        path: The file.
        what: What it is to have, for people: ``the run's id``.

    Raises:
        RunError: It can't be written.
    """
    folder = path.absolute().parent
    if not os.access(path if path.exists() else folder, os.W_OK):
        why = "it may not be written" if folder.is_dir() else f"there is no folder {folder}"
        raise RunError(f"{what} can't be written to {path}: {why}.")


def write(path: Path, what: str, text: str) -> None:
    """Writes it, in one line.

    Raises:
        RunError: It can't be written.
    """
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{what} can't be written to {path}: {error.strerror}.") from error
