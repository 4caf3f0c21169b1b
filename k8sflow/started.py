"""The folder in which this process was started: a flow's file may change the working folder when it is imported."""

from __future__ import annotations

import os
import sys


def working_folder() -> str | None:
    """The working folder, or None if it no longer exists."""
    try:
        return os.getcwd()  # noqa: PTH109  pathlib would be half of the time of `import k8sflow`
    except OSError:  # it was deleted
        return None


def _first_folder() -> str | None:
    """The folder in which Python was started, derived from the script's path even if the script has changed folders."""
    file = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    for word in sys.orig_argv[1:]:
        if file.endswith(f"{os.sep}{word}") and not os.path.isabs(word):  # noqa: PTH117  as above
            return file[: -len(word)].rstrip(os.sep) or os.sep
    return working_folder()


# Recorded when k8sflow is first imported; None if the folder no longer exists.
FOLDER = _first_folder()
