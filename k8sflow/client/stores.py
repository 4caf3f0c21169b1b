"""The stores in which a reader looks for runs: the root (a folder or a bucket), and the bucket if one is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from k8sflow import config, roots
from k8sflow.errors import ConfigurationError, NotFoundError
from k8sflow.flow.current import current
from k8sflow.runtime.lookup import stores_in
from k8sflow.storage.local_folder import nearest
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import store_of

_BUCKET = "s3://"
_LOCAL = "local@"


class _State:
    """The stores chosen in this process; None for the default ones."""

    urls: tuple[str, ...] | None = None


def metadata(place: str) -> str:
    """Chooses the stores in which this process looks for runs, and returns them as ``get_metadata`` does.

    There is no metadata service: a run's records are beside its artifacts, in a folder or in a bucket.

    Args:
        place: ``s3://bucket``, a folder with runs, or the parent folder of a ``.k8sflow``, also as ``local@folder``;
            several are separated by commas.

    Raises:
        NotFoundError: There is no such folder.
        ConfigurationError: It is a URL that is not a bucket's.
    """
    _State.urls = tuple(_url_of(each.strip()) for each in place.split(","))
    return get_metadata()


def inspect_spin(datastore_root: str = ".") -> None:
    """Chooses the folder in which this process looks for what ``spin`` ran; its pathspecs are those that ``spin`` says.

    Args:
        datastore_root: The folder with the ``.k8sflow``, or a bucket.

    Raises:
        NotFoundError: There is no such folder.
    """
    metadata(datastore_root)


def get_metadata() -> str:
    """The stores in which this process looks for runs: a folder, ``s3://bucket``, or both, separated by a comma."""
    return ",".join(store.url for store in known_stores())


def default_metadata() -> str:
    """Returns to the default stores, from the settings of the working folder, and returns them."""
    _State.urls = None
    return get_metadata()


def _url_of(place: str) -> str:
    if roots.is_bucket(roots.checked(place, "the location for metadata()")):
        return place
    folder = Path(place.removeprefix(_LOCAL)).expanduser().resolve()
    if not folder.is_dir():
        raise NotFoundError(
            f"there is no folder {folder} to look for runs in.",
            advice=f"Name a folder with a {config.ROOT_NAME}, or {_BUCKET}BUCKET.",
        )
    inside = folder / config.ROOT_NAME
    return str(inside if inside.is_dir() else folder)


def known_stores(settings: config.Settings | None = None, roots: Sequence[str] | None = None) -> list[ObjectStore]:
    """The stores to search for runs, the folder first; or those chosen by ``metadata``.

    In a task, the store of its run is first, whatever its working folder is.

    Args:
        settings: The current settings; None for those of the working folder.
        roots: The folders or buckets; None for ``K8SFLOW_ROOT``, or the nearest ``.k8sflow`` of the working folder or,
            without one, of the script's folder.

    Raises:
        ConfigurationError: The working folder was deleted, and nothing else says where to look.
    """
    found = settings or config.load_here()
    if settings is None and roots is None and _State.urls is not None:
        return [store_of(found, url) for url in _State.urls]
    stores = [*_stores_of_task(), *stores_in(found, _roots(found) if roots is None else roots)]
    if not stores:
        raise ConfigurationError(
            "there is no store to look for runs in: the working folder doesn't exist any more.",
            cause="It was deleted, or replaced by another one of the same name.",
            advice="Go to a folder that exists, set K8SFLOW_ROOT, or choose one with metadata().",
        )
    return list({store.url: store for store in stores}.values())


def _stores_of_task() -> list[ObjectStore]:
    """The store of the current run, if this process runs a task."""
    run = current.run
    return [] if run is None or run.run_store is None else [run.run_store.store]


def _roots(settings: config.Settings) -> list[str]:
    """The folder on this machine, which may not exist yet, or a bucket; none if the working folder was deleted."""
    if settings.root:
        return [settings.root]
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    here = config.working_folder()
    if found := nearest(here) or (nearest(Path(os.path.realpath(script)).parent) if script else None):
        return [str(found)]
    return [] if here is None else [str(here / config.ROOT_NAME)]
