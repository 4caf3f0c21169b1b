"""The folder with the runs of this machine: the nearest ``.k8sflow`` in the working folder and its parents.

That is Metaflow's rule: from any folder of a project, the same runs are found. If there is none yet, a run creates one
in the working folder. ``K8SFLOW_ROOT`` names another folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from k8sflow.config import ROOT_NAME, Settings


def nearest(start: Path | None) -> Path | None:
    """The nearest ``.k8sflow`` in a folder and its parents; None if there is none, or no such folder."""
    if start is None:
        return None
    found = (folder / ROOT_NAME for folder in (start, *start.parents))
    # A file of this name can't hold runs, nor can a folder that this user may not read.
    return next((folder for folder in found if os.path.isdir(folder)), None)  # noqa: PTH112  is_dir() raises for the latter


def folder_for_runs(settings: Settings, working: Path | None, beside: Path) -> Path:
    """The folder for a new run.

    Args:
        settings: The current settings.
        working: The working folder; None if it was deleted.
        beside: The folder of the flow, which replaces a deleted working folder.
    """
    if settings.root:
        return Path(settings.root)
    start = working or beside
    return nearest(start) or start / ROOT_NAME


def folders_with_runs(settings: Settings, working: Path | None, beside: Path) -> list[Path]:
    """The folders in which to look for runs of a flow, the one for new runs first.

    The other one is the nearest to the flow's own folder, where older versions kept runs.

    Args:
        settings: The current settings.
        working: The working folder; None if it was deleted.
        beside: The folder of the flow.
    """
    first = folder_for_runs(settings, working, beside)
    older = None if settings.root else nearest(beside)
    return [first] if older is None or older.resolve() == first.resolve() else [first, older]
