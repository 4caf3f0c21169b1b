"""The blobs to which the records of a flow's runs refer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from k8sflow.errors import ObjectNotFoundError, StorageError
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import FORMAT, LAYERED_FORMAT

_RECORDS = ("/run.json", "/commit.json", "/kept.json")


def is_referring(key: str) -> bool:
    """True if an object of a run may refer to blobs."""
    return key.endswith(_RECORDS)


def blobs_of(store: ObjectStore, keys: Sequence[str]) -> dict[str, set[str]]:
    """The blobs to which some records refer, by key; a record that was deleted meanwhile refers to none.

    Raises:
        StorageError: A record is damaged, or was written by a newer k8sflow.
    """

    def read(key: str) -> set[str]:
        try:
            return set(_blobs_in(_parsed(store, key)))
        except ObjectNotFoundError:
            return set()

    if store.parallel_reads == 1:
        return {key: read(key) for key in keys}
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  few processes read in bulk

    with ThreadPoolExecutor(store.parallel_reads) as pool:
        return dict(zip(keys, pool.map(read, keys), strict=True))


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
