"""The stores in which a reader looks for runs: the folder beside the flow, and the bucket where one is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from k8sflow import config
from k8sflow.storage.objects import ObjectStore, open_store


def known_stores(settings: config.Settings | None = None, root: Path | None = None) -> list[ObjectStore]:
    """The stores that exist from here: the folder, and the bucket where one is set.

    Args:
        settings: The settings that hold; None for those of the working directory.
        root: The folder; None for ``K8SFLOW_ROOT``, or ``.k8sflow`` in the working directory, the script's folder, or
            one around them.
    """
    settings = settings or config.load(Path.cwd())
    stores = []
    if (folder := root or _folder(settings)) is not None:
        stores.append(open_store(str(folder)))
    if settings.bucket:
        stores.append(open_store(f"s3://{settings.bucket}", endpoint=settings.endpoint, region=settings.region))
    return stores


def _folder(settings: config.Settings) -> Path | None:
    if settings.root:
        return Path(settings.root)
    return next((folder for folder in _candidates() if folder.is_dir()), None)


def _candidates() -> Iterator[Path]:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    starts = [Path.cwd(), *([Path(os.path.realpath(script)).parent] if script else [])]
    for start in starts:
        for parent in (start, *start.parents):
            yield parent / config.ROOT_NAME
