"""The sizes of a flow's objects in a store, by kind."""

from __future__ import annotations

from dataclasses import dataclass

from k8sflow.storage.objects import ObjectStore
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
        checkpoints: Bytes of the checkpoints of tasks without a result.
        blobs: The number of blobs, which have larger artifacts and code.
        blob_bytes: Their bytes.
    """

    flow: str
    runs: int = 0
    records: int = 0
    output: int = 0
    checkpoints: int = 0
    blobs: int = 0
    blob_bytes: int = 0

    @property
    def total(self) -> int:
        """All of its bytes."""
        return self.records + self.output + self.checkpoints + self.blob_bytes


def size_of(store: ObjectStore, flow: str) -> FlowSize:
    """The size of a flow, from one listing of all of its objects.

    Raises:
        StorageError: The store can't be reached, or refuses.
    """
    found, runs = FlowSize(flow), set()
    for each in store.list_objects(f"{flow}/"):
        kind, *below = each.key.removeprefix(f"{flow}/").split("/")
        if kind == "blobs":
            found.blobs += 1
            found.blob_bytes += each.size
            continue
        if kind in {RUNS, SPINS}:
            runs.add((kind, *below[:1]))
        if "/checkpoint/" in each.key:
            found.checkpoints += each.size
        elif each.key.rpartition("/")[2].startswith(_STREAMS):
            found.output += each.size
        else:
            found.records += each.size
    found.runs = len(runs)
    return found
