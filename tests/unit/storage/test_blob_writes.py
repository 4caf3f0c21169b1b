"""Many small blobs at a time: all are written at the end, and a refused one is an error."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import pytest

from k8sflow.errors import K8sflowError, StorageError
from k8sflow.storage import blob_writes
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore, blob_key
from k8sflow.storage.blob_writes import BlobWrites
from k8sflow.storage.encoding import encode
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.objects import Buffer


class RemoteStore(FolderStore):
    """A folder that asks for parallel writes, as a bucket does."""

    parallel_reads = 8


class FullStore(RemoteStore):
    """Refuses one of the blobs."""

    refused = 7
    count = 0

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self.count += 1
        if self.count == self.refused:
            raise StorageError("the disk is full.")
        super().put(key, parts)


def _values(count: int) -> list[bytes]:
    return [bytes([index % 256, index // 256]) * 2000 for index in range(count)]


@pytest.mark.parametrize("count", [0, 1, 4, 5, 300])
def test_all_are_written_at_the_end(folder_store: FolderStore, count: int) -> None:
    store = ArtifactStore(RemoteStore(folder_store.url), "F")
    with store.written_together():
        refs = [store.save(value, f"v{index}") for index, value in enumerate(_values(count))]

    assert [store.load(ref, "v") for ref in refs] == _values(count)


@pytest.mark.s3
def test_all_are_written_to_a_bucket(s3_store: FolderStore) -> None:
    store = ArtifactStore(s3_store, "F")
    with store.written_together():
        refs = [store.save(value, f"v{index}") for index, value in enumerate(_values(100))]

    assert [store.load(ref, "v") for ref in refs] == _values(100)


def test_a_value_that_changes_meanwhile_is_stored_as_it_was(folder_store: FolderStore) -> None:
    store, value = ArtifactStore(RemoteStore(folder_store.url), "F"), bytearray(5000)
    with store.written_together():
        ref = store.save(value, "v")
        value[:] = b"x" * 5000

    assert store.load(ref, "v") == bytearray(5000)


@pytest.mark.parametrize("refused", [1, 7, 50])
def test_a_refused_write_is_an_error(folder_store: FolderStore, refused: int) -> None:
    full = FullStore(folder_store.url)
    full.refused = refused
    store = ArtifactStore(full, "F")

    def save_all() -> None:
        with store.written_together():
            for index, value in enumerate(_values(50)):
                store.save(value, f"v{index}")

    with pytest.raises(StorageError, match="the disk is full"):
        save_all()


@pytest.mark.s3
def test_a_request_that_a_bucket_refuses_halfway_is_an_error(s3_store: FolderStore) -> None:
    """An object where the server needs a folder, so that one of the requests fails; the next attempt succeeds."""
    store = ArtifactStore(s3_store, "F")
    blobs = [encode(value, "v").blob for value in _values(60)]
    obstacle = f"F/blobs/{blobs[30][:2]}"
    s3_store.put(obstacle, [b"in the way"])

    def save_all() -> list[ArtifactRef]:
        with store.written_together():
            return [store.save(value, f"v{index}") for index, value in enumerate(_values(60))]

    with pytest.raises(K8sflowError, match=r"F/blobs/"):
        save_all()
    s3_store.delete([obstacle])

    assert [store.load(ref, "v") for ref in save_all()] == _values(60)


def test_an_error_of_the_caller_ends_the_writes() -> None:
    done: list[int] = []

    def fail() -> None:
        with BlobWrites(4) as writes:
            writes.add(lambda: done.append(1), 1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert done == []
    assert not any("ThreadPool" in each.name for each in threading.enumerate())


def test_few_bytes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's memory doesn't grow with the number of its artifacts."""
    monkeypatch.setattr(blob_writes, "_MOST_WAITING_BYTES", 100)
    done: list[int] = []
    with BlobWrites(4) as writes:
        for index in range(50):
            writes.add(lambda index=index: done.append(index), 30)
            assert index + 1 - len(done) <= 4
    assert sorted(done) == list(range(50))


def test_a_large_blob_is_written_at_once(folder_store: FolderStore) -> None:
    store = ArtifactStore(RemoteStore(folder_store.url), "F")
    with store.written_together():
        ref = store.save(os.urandom(2 << 20), "v")
        assert folder_store.exists(blob_key("F", ref.blob))


def test_a_folder_is_written_without_threads(folder_store: FolderStore) -> None:
    store = ArtifactStore(folder_store, "F")
    with store.written_together():
        ref = store.save(_values(1)[0], "v")
        assert folder_store.exists(blob_key("F", ref.blob))
