"""The stores in which a reader looks for runs: the folder beside the flow, and the bucket where one is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from k8sflow import config
from k8sflow.client.errors import NotFoundError
from k8sflow.storage.objects import ObjectStore, open_store

_BUCKET = "s3://"
_LOCAL = "local@"


class _State:
    """What this process has chosen; None for what is known here."""

    urls: tuple[str, ...] | None = None


def metadata(place: str) -> str:
    """Chooses where this process looks for runs, and returns it as ``get_metadata`` does.

    There is no metadata service: a run's records are beside its artifacts, in a folder or in a bucket.

    Args:
        place: ``s3://bucket``, a folder with runs, or the one around its ``.k8sflow``, also as ``local@folder``;
            several have commas between.

    Raises:
        NotFoundError: There is no such folder.
    """
    _State.urls = tuple(_url_of(each.strip()) for each in place.split(","))
    return get_metadata()


def get_metadata() -> str:
    """Where this process looks for runs: a folder, ``s3://bucket``, or both with a comma between; may be empty."""
    return ",".join(store.url for store in known_stores())


def default_metadata() -> str:
    """Goes back to where runs are looked for by default, the settings of the working directory, and returns it."""
    _State.urls = None
    return get_metadata()


def _url_of(place: str) -> str:
    if place.startswith(_BUCKET):
        return place
    folder = Path(place.removeprefix(_LOCAL)).expanduser().resolve()
    if not folder.is_dir():
        raise NotFoundError(
            f"there is no folder {folder} to look for runs in.",
            advice=f"Name a folder with a {config.ROOT_NAME}, or {_BUCKET}BUCKET.",
        )
    inside = folder / config.ROOT_NAME
    return str(inside if inside.is_dir() else folder)


def known_stores(settings: config.Settings | None = None, root: Path | None = None) -> list[ObjectStore]:
    """The stores that exist from here: the folder, and the bucket where one is set; or what ``metadata`` has chosen.

    Args:
        settings: The settings that hold; None for those of the working directory.
        root: The folder; None for ``K8SFLOW_ROOT``, or ``.k8sflow`` in the working directory, the script's folder, or
            one around them.
    """
    if settings is None and root is None and _State.urls is not None:
        found = config.load(Path.cwd())
        return [open_store(url, endpoint=found.endpoint, region=found.region) for url in _State.urls]
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
