"""Deletes the blobs to which no record of a flow refers, and the remains of runs without a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from k8sflow.errors import StorageError
from k8sflow.storage import layout
from k8sflow.storage.cache_index import cache_prefix, run_of_entry
from k8sflow.storage.condemned import GRACE_SECONDS, condemned_prefix
from k8sflow.storage.folder import unfinished_files
from k8sflow.storage.objects import ObjectInfo, ObjectStore
from k8sflow.storage.references import referenced
from k8sflow.storage.run_store import RUNS, SPINS

OLD_MARK_SECONDS = 3600.0
_BATCH = 500
# A writer takes a gc for dead that has announced a deletion for two minutes (storage/condemned.py).
_MOST_SECONDS_TO_DELETE = 60.0
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass
class Collected:
    """The objects that a gc deleted, or would delete, of one flow.

    Args:
        flow: The flow.
        runs: The pathspecs of the runs, with their sizes in bytes.
        blobs: The number of blobs.
        blob_bytes: Their size.
        young_blobs: The number of unreferenced blobs that a later gc will delete: they are younger than a day.
        young_bytes: Their size.
        uploads: The number of uploads in parts that nobody ended (storage/stale_uploads.py).
        upload_bytes: The size of their parts.
        leftovers: The number of other objects: index entries and remains of runs that no longer exist.
        needed: The selected runs that are kept, and why.
        problem: Why nothing, or no blob, of the flow was deleted; empty if there was no problem.
    """

    flow: str
    runs: dict[str, int] = field(default_factory=dict)
    blobs: int = 0
    blob_bytes: int = 0
    young_blobs: int = 0
    young_bytes: int = 0
    uploads: int = 0
    upload_bytes: int = 0
    leftovers: int = 0
    needed: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def each_of(store: ObjectStore, call: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Calls a function for each item, in parallel if the store allows it."""
    if store.parallel_reads == 1:
        return [call(item) for item in items]
    with ThreadPoolExecutor(store.parallel_reads) as pool:
        return list(pool.map(call, items))


def index_of(store: ObjectStore, flow: str) -> dict[str, str]:
    """The runs in a flow's indexes of runs and of cached results, by key.

    To be listed before the runs, so that each run in them existed then.
    """
    found = {key: key.split("/")[2] for key in store.list_keys(f"{flow}/index/") if layout.is_of_index(key)}
    entries = (key for key in store.list_keys(cache_prefix(flow)) if layout.is_of_cache(key))
    return found | {key: run_of_entry(key) for key in entries}


class Sweep:
    """Deletes what nothing needs, of one flow. Objects whose keys are not k8sflow's stay: a bucket may have others.

    Args:
        store: The store.
        found: Where it counts what it deletes.
        gc: The name of this gc.
        is_dry_run: True to delete nothing.
    """

    def __init__(self, store: ObjectStore, found: Collected, gc: str, *, is_dry_run: bool) -> None:
        self._store = store
        self._flow = found.flow
        self._found = found
        self._gc = gc
        self._is_dry_run = is_dry_run

    def run(self, deleted: set[str], indexed: Mapping[str, str]) -> None:
        """Deletes the blobs to which no record refers, and the remains of runs without a record.

        Args:
            deleted: The prefixes of the runs that were deleted, or would be.
            indexed: The runs in the indexes by key, as they were before the runs were listed.
        """
        remains, runs = [], set()
        for run, each in self._objects_of_runs():
            if run in deleted:
                continue
            if each.key == f"{run}/run.json":
                runs.add(run)
            remains += [(run, each)] if layout.is_of_run(each.key) else []
        lost = [each.key for run, each in remains if run not in runs and each.age > GRACE_SECONDS]
        lost += [key for key, run in indexed.items() if f"{self._flow}/{RUNS}/{run}" not in runs]
        condemned = self._store.list_objects(condemned_prefix(self._flow))
        lost += [each.key for each in condemned if layout.is_condemned(each.key) and each.age > OLD_MARK_SECONDS]
        lost += [] if self._store.folder is None else unfinished_files(self._store.folder, self._flow)
        self._found.leftovers = len(lost)
        if lost and not self._is_dry_run:
            self._store.delete(lost)
        try:
            needed = referenced(self._store, [f"{self._flow}/{folder}/" for folder in (RUNS, SPINS)], deleted)
        except StorageError as error:
            self._found.problem = f"no blob is deleted, since it is not known which are needed: {error}"
            return
        self._delete_unused(needed)

    def _objects_of_runs(self) -> Iterator[tuple[str, ObjectInfo]]:
        """All objects in the folders of runs and trial tasks, with the prefixes of their runs."""
        for folder in (RUNS, SPINS):
            for each in self._store.list_objects(f"{self._flow}/{folder}/"):
                yield "/".join(each.key.split("/")[:3]), each

    def _delete_unused(self, needed: set[str]) -> None:
        found = [e for e in self._store.list_objects(f"{self._flow}/blobs/") if layout.is_blob(e.key) or _is_left(e)]
        self._delete_parts([each.key for each in found if layout.is_part(each.key)])
        unused = [each for each in found if layout.is_blob(each.key) and _name(each) not in needed]
        old = [each for each in unused if each.age > GRACE_SECONDS]
        self._found.young_blobs = len(unused) - len(old)
        self._found.young_bytes = sum(each.size for each in unused) - sum(each.size for each in old)
        for start in range(0, len(old), _BATCH):
            self._delete_blobs(old[start : start + _BATCH])

    def _delete_parts(self, keys: Sequence[str]) -> None:
        """Deletes parts of uploads whose writers died: an upload that takes longer than a day begins again."""
        self._found.leftovers += len(keys)
        if keys and not self._is_dry_run:
            self._store.delete(keys)

    def _delete_blobs(self, blobs: Sequence[ObjectInfo]) -> None:
        if self._is_dry_run:
            self._count(blobs)
            return
        marks = [f"{condemned_prefix(self._flow, _name(each))}{self._gc}" for each in blobs]
        since = time.time()  # which counts the time that a suspended machine sleeps
        try:
            each_of(self._store, lambda mark: self._store.put(mark, [b"{}"]), marks)
            ages = each_of(self._store, lambda each: self._store.age(each.key, each.size), blobs)
            still_old = [e for e, age in zip(blobs, ages, strict=True) if age is not None and age > GRACE_SECONDS]
            if time.time() - since > _MOST_SECONDS_TO_DELETE:
                return  # a writer may no longer wait for this gc; the next one deletes them
            if still_old:
                self._store.delete([each.key for each in still_old])
            self._count(still_old)
        finally:
            self._store.delete(marks)

    def _count(self, blobs: Sequence[ObjectInfo]) -> None:
        self._found.blobs += len(blobs)
        self._found.blob_bytes += sum(each.size for each in blobs)


def _is_left(found: ObjectInfo) -> bool:
    """True if an object is a part of an upload, and so old that its writer is dead."""
    return layout.is_part(found.key) and found.age > GRACE_SECONDS


def _name(blob: ObjectInfo) -> str:
    return blob.key.rpartition("/")[2]
