"""Fixtures of all tests; and the working directory and environment are never those of the person who runs them."""

from __future__ import annotations

import copy
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k8sflow.storage.folder import FolderStore
from k8sflow.storage.local import nearest
from k8sflow.storage.memory import MemoryStore
from k8sflow.storage.objects import ObjectStore
from tests import s3server
from tests.cluster.s3 import S3Server

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

# Where each case of a test starts processes, most of them whole runs.
_DEAR = ("tests/flows/", "tests/unit/parallel/", "tests/unit/task/test_agent.py")


@pytest.hookimpl(tryfirst=True)  # before those that are slow are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where cases are dear, all but the first of each test are slow: the inner loop has an example of each kind."""
    seen: set[str] = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test in seen and test.startswith(_DEAR):
            item.add_marker(pytest.mark.slow)
        seen.add(test)


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal() -> None:
    """What a test starts hears Ctrl-C and the hang-up, also where the tests run under nohup or in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _no_runs_above(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Flows under test would keep their runs in a ``.k8sflow`` around the tests' temporary folder."""
    found = nearest(tmp_path_factory.getbasetemp())
    assert found is None, f"Remove {found}, which a flow has left that was run above the tests' temporary folder."


@pytest.fixture(autouse=True)
def _neutral_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No setting of this machine reaches a test, except the cluster's, where a test is about the cluster."""
    if "kind" in Path(str(request.node.path)).parts or "faults" in Path(str(request.node.path)).parts:
        return
    for name in os.environ:
        if name.startswith("K8SFLOW_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server with an empty bucket."""
    with s3server.s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def _s3_bucket(s3_server: S3Server) -> Iterator[S3Store]:
    """The server's bucket; a client of boto3 takes a third of a second to make."""
    from k8sflow.storage.s3 import S3Store

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3server.KEYS.items():
            patch.setenv(name, value)
        store = S3Store(f"s3://{s3server.BUCKET}", endpoint=s3_server.endpoint, region="us-east-1")
        store.check()
    yield store
    store.close()


@pytest.fixture
def s3_store(_s3_bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store below a prefix of its own in the server's bucket."""
    for name, value in s3server.KEYS.items():
        monkeypatch.setenv(name, value)
    store = copy.copy(_s3_bucket)
    store.prefix = f"{secrets.token_hex(4)}/"
    return store


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    """A store in a folder that is not there yet."""
    return FolderStore(str(tmp_path / "store"))


@pytest.fixture
def memory_store() -> MemoryStore:
    """A store in this process's memory."""
    return MemoryStore()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def shared_store(request: pytest.FixtureRequest) -> ObjectStore:
    """Each kind of store that other processes find too."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """Each kind of store; what holds for one has to hold for the others."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found
