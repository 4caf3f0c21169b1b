"""The stores in which a reader looks for runs, under Metaflow's names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow import Flow, default_metadata, default_namespace, get_metadata, metadata, namespace
from k8sflow.client import NotFoundError
from k8sflow.errors import ConfigurationError
from k8sflow.flow.graph import Graph
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "a/.k8sflow"))
    monkeypatch.delenv("K8SFLOW_BUCKET", raising=False)
    for folder in ("a", "b"):
        store = FolderStore(str(tmp_path / folder / ".k8sflow"))
        RunStore(store, "F", folder).create(RunRecord("F", folder, "f.py", {}, Graph("F"), created=1e9))
    namespace(None)
    yield
    default_namespace()
    default_metadata()


def test_the_metadata_is_the_url_of_the_store(tmp_path: Path) -> None:
    """A run's records are beside its artifacts, not in a service."""
    assert get_metadata() == str(tmp_path / "a/.k8sflow")
    other = str(tmp_path / "b/.k8sflow")
    for place in (str(tmp_path / "b"), other, f"local@{tmp_path}/b", "b"):
        assert metadata(place) == get_metadata() == other
        assert [run.id for run in Flow("F")] == ["b"]
    assert metadata(get_metadata()) == other
    metadata("a,b")
    assert {run.id for run in Flow("F")} == {"a", "b"}
    assert default_metadata() == str(tmp_path / "a/.k8sflow")
    assert [run.id for run in Flow("F")] == ["a"]


@pytest.mark.parametrize("place", ["gs://", "abfs://bucket", "s3:/bucket", "s3://"])
def test_a_url_that_names_no_bucket_is_refused(place: str) -> None:
    """It is not a folder of this name either."""
    with pytest.raises(ConfigurationError, match=re.escape(f"metadata() is {place!r}")):
        metadata(place)


def test_a_missing_folder_changes_nothing(tmp_path: Path) -> None:
    """It is reported, with the accepted forms."""
    with pytest.raises(NotFoundError, match="there is no folder") as caught:
        metadata("nowhere")
    assert "s3://" in caught.value.advice
    assert get_metadata() == str(tmp_path / "a/.k8sflow")
