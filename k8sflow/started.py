"""The folder in which this process was started: a flow's file may change the working folder when it is imported."""

from __future__ import annotations

import os
import sys


def working_folder() -> str | None:
    """The working folder; None where it no longer exists."""
    try:
        return os.getcwd()  # noqa: PTH109  pathlib would be half of the time of `import k8sflow`
    except OSError:  # it was deleted
        return None


def _first_folder() -> str | None:
    """The folder in which Python was started: a file that was named from there says so even after it has left it."""
    file = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    for word in sys.orig_argv[1:]:
        if file.endswith(f"{os.sep}{word}") and not os.path.isabs(word):  # noqa: PTH117  as above
            return file[: -len(word)].rstrip(os.sep) or os.sep
    return working_folder()


# Noted when k8sflow is first imported; None where the folder doesn't exist any more.
FOLDER = _first_folder()
