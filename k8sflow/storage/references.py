"""The blobs to which the records of a flow's runs refer."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from k8sflow.errors import ObjectNotFoundError, StorageError
from k8sflow.storage import layout
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import FORMAT, LAYERED_FORMAT

_MOST_LISTINGS = 100
_RECORDS = ("/run.json", "/commit.json", "/kept.json")


def is_referring(key: str) -> bool:
    """True if an object of a run may refer to blobs."""
    return key.endswith(_RECORDS) or layout.is_taken(key)


def referenced(store: ObjectStore, folders: Sequence[str], deleted: Container[str]) -> set[str]:
    """The blobs to which the records of runs refer.

    If a record is deleted before it is read, one written since the listing may refer to its blobs, as that of a
    task with a cached result does. So all are listed again.

    Args:
        store: The store.
        folders: The prefixes of the runs.
        deleted: The prefixes of runs that don't count.

    Raises:
        StorageError: A record is damaged, or was written by a newer k8sflow, or others are deleted all the time.
    """
    read: dict[str, set[str]] = {}
    for _ in range(_MOST_LISTINGS):
        keys = [key for key in _records_in(store, folders) if _run_of(key) not in deleted]
        read |= _blobs_of(store, [key for key in keys if key not in read])
        if read.keys() >= set(keys):
            return set().union(*(read[key] for key in keys))
    raise StorageError(f"records in {store.url} are deleted all the time.", advice="Run gc again.")


def _records_in(store: ObjectStore, folders: Sequence[str]) -> list[str]:
    """The keys of records, and of what may be one of a newer version: each in the folder of a run that has a record."""
    keys = [key for folder in folders for key in store.list_keys(folder) if is_referring(key)]
    runs = {key.removesuffix("/run.json") for key in keys}
    return [key for key in keys if _run_of(key) in runs or layout.is_of_run(key)]


def _run_of(key: str) -> str:
    return "/".join(key.split("/")[:3])


def _blobs_of(store: ObjectStore, keys: Sequence[str]) -> dict[str, set[str]]:
    """The blobs to which some records refer, by key; without the records that were deleted meanwhile."""

    def read(key: str) -> set[str] | None:
        try:
            return set(_blobs_in(_parsed(store, key)))
        except ObjectNotFoundError:
            return None

    if store.parallel_reads == 1:
        found = list(map(read, keys))
    else:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  few processes read in bulk

        with ThreadPoolExecutor(store.parallel_reads) as pool:
            found = list(pool.map(read, keys))
    return {key: blobs for key, blobs in zip(keys, found, strict=True) if blobs is not None}


def _parsed(store: ObjectStore, key: str) -> dict[str, Any]:
    """The content of a record.

    Raises:
        ObjectNotFoundError: There is none.
        StorageError: It is damaged, or was written by a newer k8sflow.
    """
    try:
        document: dict[str, Any] = json.loads(bytes(store.get(key)))
        found = document["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{key} in {store.url} is damaged: {type(error).__name__}: {error}.") from error
    if found not in {FORMAT, LAYERED_FORMAT}:
        raise StorageError(f"{key} in {store.url} has the format {found}, which a newer k8sflow wrote.")
    return document


def _blobs_in(document: Any) -> Iterator[str]:
    """The hashes in the references to values, at any depth, and that of the code package."""
    if isinstance(document, dict):
        if isinstance(document.get("package"), str):
            yield document["package"]
        if isinstance(document.get("blob"), str) and document.get("inline") is None:
            yield document["blob"]
        children: Iterable[Any] = document.values()
    elif isinstance(document, list):
        children = document
    else:
        return
    for child in children:
        yield from _blobs_in(child)
