"""Where runs are kept on this machine: the nearest ``.k8sflow`` of the working folder and the folders around it.

That is Metaflow's rule, so everybody who works in a project, in whatever folder of it, finds the same runs. Where there
is none yet, a run makes one in the working folder. ``K8SFLOW_ROOT`` names another folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from k8sflow.config import ROOT_NAME, Settings


def nearest(start: Path | None) -> Path | None:
    """The nearest ``.k8sflow`` of a folder and those around it; None where there is none, or no such folder."""
    if start is None:
        return None
    found = (folder / ROOT_NAME for folder in (start, *start.parents))
    # A file of this name is no place for runs, and neither is a folder that may not be looked at.
    return next((folder for folder in found if os.path.isdir(folder)), None)  # noqa: PTH112  is_dir() raises then


def folder_for_runs(settings: Settings, working: Path | None, beside: Path) -> Path:
    """The folder in which a new run is kept.

    Args:
        settings: The settings that hold.
        working: The working folder; None where it was deleted.
        beside: The folder of the flow, which takes the place of a deleted working folder.
    """
    if settings.root:
        return Path(settings.root)
    start = working or beside
    return nearest(start) or start / ROOT_NAME


def folders_with_runs(settings: Settings, working: Path | None, beside: Path) -> list[Path]:
    """The folders in which the runs of a flow are looked for, the one for new runs first.

    The other one is the nearest of the flow's own folder, where older versions kept runs.

    Args:
        settings: The settings that hold.
        working: The working folder; None where it was deleted.
        beside: The folder of the flow.
    """
    first = folder_for_runs(settings, working, beside)
    older = None if settings.root else nearest(beside)
    return [first] if older is None or older.resolve() == first.resolve() else [first, older]
