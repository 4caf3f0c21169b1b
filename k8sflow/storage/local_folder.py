"""The folder with the runs of this machine: the nearest ``.k8sflow`` in the working folder and its parents.

That is Metaflow's rule: from any folder of a project, the same runs are found. If there is none yet, a run creates one
in the working folder. ``K8SFLOW_ROOT`` names another folder, or a bucket.
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


def root_for_runs(settings: Settings, working: Path | None, beside: Path) -> str:
    """The folder or the bucket for a new run on this machine, as ``open_store`` accepts it.

    Args:
        settings: The current settings.
        working: The working folder; None if it was deleted.
        beside: The folder of the flow, which replaces a deleted working folder.
    """
    if settings.root:
        return settings.root
    start = working or beside
    return str(nearest(start) or start / ROOT_NAME)


def roots_with_runs(settings: Settings, working: Path | None, beside: Path) -> list[str]:
    """The folders, or the bucket, in which to look for runs of a flow, the one for new runs first.

    The other one is the nearest to the flow's own folder, where older versions kept runs.

    Args:
        settings: The current settings.
        working: The working folder; None if it was deleted.
        beside: The folder of the flow.
    """
    first = root_for_runs(settings, working, beside)
    older = None if settings.root else nearest(beside)
    return [first] if older is None or older.resolve() == Path(first).resolve() else [first, str(older)]
