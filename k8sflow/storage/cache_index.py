"""The results that later runs may take, by their keys.

<flow>/cache/<step>/<key>/<run>/<task>    the result of a task, as what it changed of the artifacts that it inherited

An entry has references to blobs, and keeps none of them from ``gc``: a run that takes the result has them in commits of
its own. An entry whose run was deleted, or whose blobs are missing, counts as none; ``gc`` deletes the former.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8sflow.errors import ObjectNotFoundError
from k8sflow.storage.artifacts import ArtifactRef, blob_key
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import FORMAT, ForeachItems, dump

# So many results of one key are looked at, the newest first.
_MOST_CANDIDATES = 5


@dataclass(frozen=True)
class CacheEntry:
    """A result that a later run may take.

    Args:
        run: The run in which the task ran.
        step: The step.
        task: The id of the task.
        parts: The hashes of which the key is made, by what they are.
        steps: The next steps.
        changed: The artifacts that the task set or changed, by name.
        removed: The names of those that it deleted.
        foreach: The items of the foreach that it opened.
        attempt: The attempt that made it.
        started: When its step was called, in seconds since 1970.
        finished: When it returned.
    """

    run: str
    step: str
    task: str
    parts: Mapping[str, str]
    steps: tuple[str, ...]
    changed: Mapping[str, ArtifactRef]
    removed: tuple[str, ...] = ()
    foreach: ForeachItems | None = None
    attempt: int = 0
    started: float = 0.0
    finished: float = 0.0

    def blobs(self) -> Iterator[ArtifactRef]:
        """The references to values that are not in the entry itself."""
        items = self.foreach.chunks if self.foreach is not None else ()
        return (ref for ref in (*self.changed.values(), *(ref for _, ref in items)) if ref.inline is None)

    def to_document(self) -> dict[str, Any]:
        """The entry as JSON types."""
        return {
            "parts": dict(self.parts),
            "steps": self.steps,
            "changed": {name: ref.to_document() for name, ref in self.changed.items()},
            "removed": self.removed,
            "foreach": None if self.foreach is None else self.foreach.to_document(),
            "attempt": self.attempt,
            "started": self.started,
            "finished": self.finished,
        }

    @staticmethod
    def from_document(run: str, step: str, task: str, document: Mapping[str, Any]) -> CacheEntry:
        """The entry of a task in a JSON document."""
        foreach = document["foreach"]
        return CacheEntry(
            run,
            step,
            task,
            parts=document["parts"],
            steps=tuple(document["steps"]),
            changed={name: ArtifactRef.from_document(ref) for name, ref in document["changed"].items()},
            removed=tuple(document["removed"]),
            foreach=None if foreach is None else ForeachItems.from_document(foreach),
            attempt=document["attempt"],
            started=document["started"],
            finished=document["finished"],
        )


def cache_prefix(flow: str, step: str = "", key: str = "") -> str:
    """The prefix of the entries of a flow, of one of its steps, or of a key."""
    return "/".join([flow, "cache", *filter(None, (step, key)), ""])


def run_of_entry(key: str) -> str:
    """The run in the key of an entry; empty for the key of something else."""
    words = key.split("/")
    return words[4] if len(words) == 6 else ""  # noqa: PLR2004  as the layout says


def put_entry(store: ObjectStore, flow: str, key: str, entry: CacheEntry) -> None:
    """Writes the entry of a task under a key.

    Raises:
        StorageError: The store refuses.
    """
    store.put(f"{cache_prefix(flow, entry.step, key)}{entry.run}/{entry.task}", [dump(entry.to_document())])


def put_taken(store: ObjectStore, run: str, refs: Sequence[ArtifactRef]) -> None:
    """Writes that a run is about to take results which refer to some blobs, so that no gc deletes these.

    Args:
        store: The store.
        run: The prefix of the run.
        refs: The references.

    Raises:
        StorageError: The store refuses.
    """
    document = {"taken": [ref.to_document() for ref in refs]}
    store.put(f"{run}/taken/{secrets.token_hex(8)}.json", [dump(document)])


def entries_of(store: ObjectStore, flow: str, step: str, key: str) -> Iterator[CacheEntry]:
    """The newest entries of a key that can be read, the newest first.

    Raises:
        StorageError: The store can't be reached.
    """
    objects = sorted(store.list_objects(cache_prefix(flow, step, key)), key=lambda each: each.age)
    for each in objects[:_MOST_CANDIDATES]:
        if (entry := read_entry(store, each.key)) is not None:
            yield entry


def newest_entries(store: ObjectStore, flow: str, step: str, task: str | None = None) -> Iterator[CacheEntry]:
    """The entries of a step that can be read, the newest first.

    Args:
        store: The store.
        flow: The flow's name.
        step: The step.
        task: The id of a task; None for all.

    Raises:
        StorageError: The store can't be reached.
    """
    objects = sorted(store.list_objects(cache_prefix(flow, step)), key=lambda each: each.age)
    for each in objects:
        if (task is None or each.key.endswith(f"/{task}")) and (entry := read_entry(store, each.key)) is not None:
            yield entry


def read_entry(store: ObjectStore, key: str) -> CacheEntry | None:
    """The entry in an object; None if there is none that this version can read.

    Raises:
        StorageError: The store can't be reached.
    """
    try:
        data = bytes(store.get(key))
    except ObjectNotFoundError:
        return None
    try:
        _, _, step, _, run, task = key.split("/")
        document = json.loads(data)
        return CacheEntry.from_document(run, step, task, document) if document["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError):  # a damaged entry is a miss
        return None


def has_blobs(store: ObjectStore, flow: str, entry: CacheEntry) -> bool:
    """True if the store has all that an entry refers to."""
    return all(store.exists(blob_key(flow, ref.blob), ref.size) for ref in entry.blobs())
