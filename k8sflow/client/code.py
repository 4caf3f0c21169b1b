"""The code package of a run."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from k8sflow.errors import PackageError
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore, blob_key
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore


class Code:
    """The flow's folder at the start of the run."""

    def __init__(self, run_store: RunStore, record: RunRecord) -> None:
        assert record.package is not None
        self.sha = record.package
        self.script_name = record.file
        self._run_store = run_store

    @property
    def path(self) -> str:
        """The URL or path of the package in the store."""
        return f"{self._run_store.store.url}/{blob_key(self._run_store.flow, self.sha)}"

    @property
    def archive(self) -> bytes:
        """The package: a tar.gz file, verified.

        Raises:
            ArtifactError: It was deleted.
            PackageError: It is damaged.
        """
        store = ArtifactStore(self._run_store.store, self._run_store.flow)
        data = bytes(store.load_blob(self.sha, "the code package"))
        if hashlib.sha256(data).hexdigest() != self.sha:
            raise PackageError(f"the code package {self.path} is damaged.", advice="Start the run again.")
        return data

    @property
    def tarball(self) -> tarfile.TarFile:
        """The package as an open tar file."""
        return tarfile.open(fileobj=io.BytesIO(self.archive), mode="r:gz")

    @property
    def flowspec(self) -> str:
        """The source of the flow's file."""
        with self.tarball as tar:
            found = tar.extractfile(self.script_name)
            assert found is not None
            return found.read().decode("utf-8")

    def files(self) -> list[tuple[str, int]]:
        """The names and sizes in bytes of the files."""
        with self.tarball as tar:
            return [(entry.name, entry.size) for entry in tar]

    def extract(self, folder: str | Path) -> None:
        """Unpacks the package into a folder, which is created if needed."""
        package.extract(self.archive, self.sha, Path(folder))

    def __repr__(self) -> str:
        return f"<code {self.script_name} of {self._run_store.flow}/{self._run_store.run}>"
