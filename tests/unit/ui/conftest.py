"""A store with runs, and its pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow.flow.compile import compile_flow
from k8sflow.flow.graph import Graph
from k8sflow.storage.folder import FolderStore
from tests.pages import Reader, serving
from tests.sources import foreach
from tests.support import load_flow, write_flow


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A flow with a foreach."""
    return compile_flow(load_flow(write_flow(tmp_path_factory.mktemp("flow"), foreach()))).graph


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty folder."""
    return FolderStore(tmp_path / "runs")


@pytest.fixture
def reader(store: FolderStore) -> Iterator[Reader]:
    """The pages of the runs in the folder."""
    with serving(store) as found:
        yield found
