"""The sizes of a flow's objects in a store, by kind."""

from __future__ import annotations

from dataclasses import dataclass

from k8sflow.storage import layout
from k8sflow.storage.objects import ObjectInfo, ObjectStore
from k8sflow.storage.run_store import RUNS, SPINS

_STREAMS = ("stdout", "stderr")


@dataclass
class FlowSize:
    """The bytes that a flow takes.

    Args:
        flow: The flow.
        runs: The number of its runs, with the trial tasks of ``spin``.
        records: Bytes of the records of runs and tasks, with small artifacts in them.
        output: Bytes of the output of tasks.
        cards: Bytes of the cards of tasks.
        checkpoints: Bytes of the checkpoints of tasks without a result.
        blobs: The number of blobs, which have larger artifacts and code.
        blob_bytes: Their bytes.
        data: Bytes of the users' own objects, of ``S3(run=self)``.
    """

    flow: str
    runs: int = 0
    records: int = 0
    output: int = 0
    cards: int = 0
    checkpoints: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    data: int = 0

    @property
    def total(self) -> int:
        """All of its bytes."""
        return self.records + self.output + self.cards + self.checkpoints + self.blob_bytes + self.data

    @property
    def is_empty(self) -> bool:
        """True if nothing of k8sflow is there: the folder is another program's."""
        return self.total == 0

    def add(self, each: ObjectInfo) -> None:
        """Counts an object of a run."""
        if layout.is_checkpoint(each.key):
            self.checkpoints += each.size
        elif layout.is_card(each.key):
            self.cards += each.size
        elif each.key.rpartition("/")[2].startswith(_STREAMS):
            self.output += each.size
        else:
            self.records += each.size


def size_of(store: ObjectStore, flow: str) -> FlowSize:
    """The size of a flow, from listings of its objects; those of other programs are not counted.

    Raises:
        StorageError: The store can't be reached, or refuses.
    """
    found, runs = FlowSize(flow), set()
    for each in store.list_objects(f"{flow}/blobs/"):
        if layout.is_blob(each.key):
            found.blobs += 1
            found.blob_bytes += each.size
    for folder in (RUNS, SPINS):
        for each in store.list_objects(f"{flow}/{folder}/"):
            if not layout.is_of_run(each.key):
                continue
            runs.add("/".join(each.key.split("/")[:3]))
            found.add(each)
    for name, is_ours in (
        ("index", layout.is_of_index),
        ("cache", layout.is_of_cache),
        ("condemned", layout.is_condemned),
    ):
        found.records += sum(each.size for each in store.list_objects(f"{flow}/{name}/") if is_ours(each.key))
    found.runs = len(runs)
    if not found.is_empty or any(map(layout.is_run_id, store.list_folders(f"{flow}/{layout.DATA}/"))):
        found.data = sum(each.size for each in store.list_objects(f"{flow}/{layout.DATA}/"))
    return found
