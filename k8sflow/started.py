"""The folder in which this process was started: a flow's file may change the working folder when it is imported."""

from __future__ import annotations

import os


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  pathlib would be half of the time of `import k8sflow`
    except OSError:  # it was deleted
        return None


# Noted when k8sflow is first imported; None where the folder doesn't exist any more.
FOLDER = _working_folder()
