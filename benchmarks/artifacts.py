"""Values to and from a store: k8sflow, Metaflow from PyPI, and the bare operation on the same bytes, in one run.

    make bench-artifacts

Each contender does what a task does with an artifact: pickle, hash and write it; or read, check and unpickle it, where
Metaflow has no check. The S3 server is versitygw, on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from resume import definition_in
from side_by_side import Comparison, Contender, options, run_all

from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.clones import put_commits
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import Commit, to_bytes
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from k8sflow.task.inside.inputs import Inputs
from k8sflow.task.spec import TaskInput
from tests.s3server import BUCKET, KEYS, NO_FILES, s3_server

MEGABYTE = 1_000_000
ROWS = 10_000_000
SMALL = 1_000
BRANCHES = 10_000
_PARTS = 8 << 20
_PEAK = """
import resource
import numpy as np
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
value = np.random.default_rng(0).random({size} // 8)
store = ArtifactStore(FolderStore({folder!r}), "F")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.save(value, "a")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def main() -> None:
    """Run the comparisons."""
    parser = options("Artifacts against Metaflow and the bare operation.", times=5)
    parser.add_argument("--metaflow-times", type=int, default=2, help="turns of Metaflow [%(default)s]")
    chosen = parser.parse_args()
    os.environ.update({**KEYS, **NO_FILES})
    with tempfile.TemporaryDirectory() as folder, s3_server(_made(Path(folder, "s3"))) as server:
        os.environ["METAFLOW_S3_ENDPOINT_URL"] = server.endpoint
        stores = Stores(Path(folder), server.endpoint, chosen.times, chosen.metaflow_times)
        run_all(stores.comparisons(), chosen)
        if any(stores.sizes.values()):
            text = ", ".join(f"{name} {size / MEGABYTE:.0f} MB" for name, size in stores.sizes.items())
            print(f"\nThe blob of 10 million rows: {text}.")
        if not chosen.only:
            print(f"\nSaving 300 MB: {stores.peak(300 * MEGABYTE):.0f} MB beyond the value.")


@dataclass
class Stores:
    """A folder and a bucket, each in the hands of three contenders.

    Args:
        folder: Everything is below it.
        endpoint: URL of the S3 server.
        times: Turns of k8sflow and the bare operation.
        metaflow_times: Turns of Metaflow.
    """

    folder: Path
    endpoint: str
    times: int
    metaflow_times: int
    sizes: dict[str, int] = field(default_factory=dict)
    _is_filled: bool = False

    def comparisons(self) -> Iterator[Comparison]:
        """From the smallest to the largest; a value is created when its comparison is due."""
        floats = np.random.default_rng(0).random(300 * MEGABYTE // 8)
        yield from self._both("300 MB of random floats", floats, "folder")
        yield from self._both("2 GiB of random floats", np.random.default_rng(0).random(2 << 27), "folder")
        yield from self._both("2 GiB of random floats", np.random.default_rng(0).random(2 << 27), "S3")
        yield from self._small()
        table = frame()
        yield from self._both("10 million rows, 6 columns", table, "folder", self.sizes)
        yield from self._join()

    def _both(self, what: str, value: Any, where: str, sizes: dict[str, int] | None = None) -> Iterator[Comparison]:
        """Saving a value, and loading it; the sizes of the blobs are noted, if that is asked for."""
        ours, theirs, bare = self._ours(where), Metaflow(self, where), Bare(self, where)
        yield Comparison(f"save {what} to {where}", bare.saving, (
            Contender("k8sflow", lambda: ours.save(value), self.times),
            Contender("Metaflow", lambda: theirs.save(value), self.metaflow_times),
            Contender("bare", lambda: bare.save(value), self.times),
        ))  # fmt: skip
        yield Comparison(f"load {what} from {where}", bare.loading, (
            Contender("k8sflow", lambda: ours.load(value), self.times),
            Contender("Metaflow", lambda: theirs.load(value), self.metaflow_times),
            Contender("bare", lambda: bare.load(value), self.times),
        ))  # fmt: skip
        if sizes is not None:
            sizes.update(k8sflow=ours.size(), Metaflow=theirs.size())
        for store in (ours, theirs, bare):
            store.clear()

    def _join(self) -> Iterator[Comparison]:
        """A join that reads a small artifact of each branch; bare: the same objects, as many at a time."""
        store = S3Store(f"s3://{BUCKET}", endpoint=self.endpoint, region="us-east-1")
        definition = definition_in(self.folder)
        run, artifacts = RunStore(store, "F", "wide"), ArtifactStore(store, "F")
        inputs = (TaskInput("work", (), BRANCHES),)

        def fill() -> None:
            commits = (Commit(0, ("join",), {"y": artifacts.save(index, "y")}) for index in range(BRANCHES))
            put_commits(run, (("work", str(i), to_bytes(each.to_document())) for i, each in enumerate(commits)))

        def read() -> None:
            if not self._is_filled:
                fill()
                self._is_filled = True
            found = Inputs(inputs, RunStore(store, "F", "wide"), {}, ArtifactStore(store, "F"), definition, "join")
            assert sum(branch.y for branch in found) == sum(range(BRANCHES))

        def get() -> None:
            with ThreadPoolExecutor(S3Store.parallel_reads) as pool:
                for _ in pool.map(
                    lambda index: store.get(run.task_key("work", str(index), "commit.json")), range(BRANCHES)
                ):
                    pass

        yield Comparison(f"join over {BRANCHES:,} branches from S3", "GETs of the commits, 32 at a time", (
            Contender("k8sflow", read, min(self.times, 3)),
            Contender("bare", get, min(self.times, 3)),
        ))  # fmt: skip

    def _small(self) -> Iterator[Comparison]:
        """Many artifacts of one task, each an object of its own."""
        for where in ("folder", "S3"):
            ours, theirs, bare = self._ours(where), Metaflow(self, where), Bare(self, where)
            yield Comparison(f"save {SMALL:,} artifacts of 5 kB to {where}", "the same, one after the other", (
                Contender("k8sflow", lambda ours=ours: ours.save_all(small()), self.times),
                Contender("Metaflow", lambda theirs=theirs: theirs.save_all(small()), self.metaflow_times),
                Contender("bare", lambda bare=bare: [bare.save(value) for value in small()], self.times),
            ))  # fmt: skip
            for store in (ours, theirs, bare):
                store.clear()

    def _ours(self, where: str) -> Ours:
        return Ours(self, where)

    def peak(self, size: int) -> float:
        """The memory that saving takes beyond the value, in MB (getrusage(2))."""
        folder = self.folder / "peak"
        code = _PEAK.format(size=size, folder=str(folder))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        shutil.rmtree(folder)
        return float(done.stdout)


class Ours:
    """k8sflow's artifacts: deduplicated by their sha256, which is checked before a value is unpickled."""

    def __init__(self, stores: Stores, where: str) -> None:
        self._folder = stores.folder / "ours"
        self._is_local = where == "folder"
        self._url = f"s3://{BUCKET}"
        self._endpoint = stores.endpoint
        self._ref: ArtifactRef | None = None

    def save(self, value: Any) -> None:
        self.clear()
        self._ref = self._open().save(value, "value")

    def save_all(self, values: list[Any]) -> None:
        self.clear()
        store = self._open()
        with store.written_together():
            for index, value in enumerate(values):
                store.save(value, f"value{index}")

    def load(self, value: Any) -> None:
        """Load the value that was saved last; where saving was not selected, the first turn saves it."""
        if self._ref is None:
            self.save(value)
        assert self._ref is not None
        self._open().load(self._ref, "value")

    def clear(self) -> None:
        with self._store() as store:
            store.delete(list(store.list_keys("F")))

    def size(self) -> int:
        """The length of the blob that was saved last."""
        return 0 if self._ref is None else self._ref.size

    def _open(self) -> ArtifactStore:
        """As a new task has it, which has cached nothing."""
        return ArtifactStore(self._make(), "F")

    @contextlib.contextmanager
    def _store(self) -> Iterator[ObjectStore]:
        store = self._make()
        yield store
        store.close()

    def _make(self) -> ObjectStore:
        if self._is_local:
            return FolderStore(str(self._folder))
        return S3Store(self._url, endpoint=self._endpoint, region="us-east-1")


class Metaflow:
    """Metaflow's blobs: a pickle, gzipped, under its sha1, which is not checked when it is read."""

    def __init__(self, stores: Stores, where: str) -> None:
        self._stores = stores
        self._is_local = where == "folder"
        self._keys: list[str] = []

    def save(self, value: Any) -> None:
        self.save_all([value])

    def save_all(self, values: list[Any]) -> None:
        self.clear()
        # As TaskDataStore.save_artifacts does it: https://github.com/Netflix/metaflow/blob/2.19.39/metaflow/datastore
        pickled = (pickle.dumps(value, protocol=4) for value in values)
        self._keys = [each.key for each in self._open().save_blobs(pickled, len_hint=len(values))]

    def load(self, value: Any) -> None:
        if not self._keys:
            self.save(value)
        for _, blob in self._open().load_blobs(self._keys):
            pickle.loads(blob)

    def clear(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def size(self) -> int:
        """The length of the blobs that were saved last."""
        return sum(path.stat().st_size for path in self._root.rglob("*") if path.is_file())

    @property
    def _root(self) -> Path:
        return self._stores.folder / "metaflow" if self._is_local else self._stores.folder / "s3" / BUCKET / "metaflow"

    def _open(self) -> Any:
        from metaflow.datastore.content_addressed_store import ContentAddressedStore
        from metaflow.plugins.datastores.local_storage import LocalStorage
        from metaflow.plugins.datastores.s3_storage import S3Storage

        root = str(self._root) if self._is_local else f"s3://{BUCKET}/metaflow"
        return ContentAddressedStore("data", LocalStorage(root) if self._is_local else S3Storage(root))


class Bare:
    """The value's bytes: hashed and written, or read and hashed."""

    def __init__(self, stores: Stores, where: str) -> None:
        self._path = stores.folder / "bare"
        self._is_local = where == "folder"
        self._endpoint = stores.endpoint
        place = "a new file" if self._is_local else "boto3's multipart upload, eight parts at a time"
        self.saving = f"pickle, sha256 and {place}"
        self.loading = f"{'reading a file' if self._is_local else 'download_fileobj of boto3'}, sha256 and unpickling"
        self._buffers: list[int] = []

    def save(self, value: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        parts = [pickle.dumps(value, protocol=5, buffer_callback=buffers.append)]
        self._buffers = [buffer.raw().nbytes for buffer in buffers]
        digest = hashlib.sha256()
        views = [memoryview(part) for part in parts] + [buffer.raw() for buffer in buffers]
        for view in views:
            digest.update(view)
        if self._is_local:
            with self._path.open("wb", buffering=0) as file:
                for view in views:
                    rest = view
                    while rest:
                        rest = rest[file.write(rest) :]
            return
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_chunksize=_PARTS, max_concurrency=8)
        joined = io.BytesIO(b"".join(views)) if sum(view.nbytes for view in views) < _PARTS else _Readable(views)
        self._client().upload_fileobj(joined, BUCKET, "bare", Config=config)

    def load(self, value: Any) -> None:
        if not self._buffers:
            self.save(value)
        if self._is_local:
            data = bytearray(self._path.stat().st_size)
            with self._path.open("rb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.readinto(view) :]
        else:
            received = io.BytesIO()
            self._client().download_fileobj(BUCKET, "bare", received)
            data = bytearray(received.getbuffer())
        hashlib.sha256(data).hexdigest()
        view, end = memoryview(data), len(data)
        buffers: list[memoryview] = []
        for size in reversed(self._buffers):
            buffers.insert(0, view[end - size : end])
            end -= size
        pickle.loads(view[:end], buffers=buffers)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def _client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self._endpoint, region_name="us-east-1")


class _Readable(io.RawIOBase):
    """A file of several buffers, for boto3."""

    def __init__(self, views: list[memoryview]) -> None:
        self._views = list(views)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while self._views and not self._views[0]:
            self._views.pop(0)
        if not self._views:
            return 0
        count = min(len(target), len(self._views[0]))
        target[:count] = self._views[0][:count]
        self._views[0] = self._views[0][count:]
        return count


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def frame() -> Any:
    """A table of numbers and strings, as pandas has it."""
    import pandas as pd

    random = np.random.default_rng(0)
    words = np.array([f"word {number}" for number in range(1000)])
    return pd.DataFrame(
        {
            "a": random.random(ROWS),
            "b": random.random(ROWS),
            "c": random.integers(0, 1000, ROWS),
            "d": np.arange(ROWS),
            "e": words[random.integers(0, 1000, ROWS)],
            "f": words[random.integers(0, 1000, ROWS)],
        }
    )


def small() -> list[bytes]:
    return [index.to_bytes(4, "big") * 1250 for index in range(SMALL)]


if __name__ == "__main__":
    main()
