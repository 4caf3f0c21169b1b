"""Fixtures of all tests; the working directory and the environment are never the developer's own."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from k8sflow.storage.folder import FolderStore
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.local_folder import nearest
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import open_store
from tests import azureserver, gcsserver, s3server
from tests.cluster.s3 import S3Server

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

# A busy machine draws examples slowly; that is not a failure.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Each case of these tests starts processes, most of them whole runs.
_EXPENSIVE = ("tests/flows/", "tests/unit/parallel/", "tests/unit/task/host/test_agent.py")


@pytest.hookimpl(trylast=True)  # the terminal reporter has counted everything
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session in which a test was skipped or expected to fail, if CI asks for that."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("FAIL_ON_SKIP"):
        return
    reasons = [outcome for outcome in ("skipped", "xfailed", "xpassed") if reporter.stats.get(outcome)]
    if reasons and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"tests were {' and '.join(reasons)}, which FAIL_ON_SKIP counts as a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(tryfirst=True)  # before slow tests are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but the first case of each expensive test as slow: the inner loop has an example of each kind."""
    seen: set[str] = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test in seen and test.startswith(_EXPENSIVE):
            item.add_marker(pytest.mark.slow)
        seen.add(test)


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal() -> None:
    """Reset the signals, so that processes under test react to Ctrl-C and hang-up, even under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _no_runs_above(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Refuse a ``.k8sflow`` around the tests' temporary folder: flows under test would keep their runs in it."""
    found = nearest(tmp_path_factory.getbasetemp())
    assert found is None, f"Remove {found}, which comes from a flow that was run above the tests' temporary folder."


@pytest.fixture(autouse=True)
def _neutral_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Keep this machine's settings from the tests, except the cluster's in tests of the cluster."""
    if "kind" in Path(str(request.node.path)).parts:
        return
    for name in os.environ:
        if name.startswith("K8SFLOW_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start an S3 server with an empty bucket."""
    with s3server.s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def _s3_clients(s3_server: S3Server) -> Iterator[dict[str, S3Store]]:
    """Open the server's bucket once with each client; creating one of boto3 takes a third of a second."""
    from k8sflow.storage import s3, s3_http

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3server.KEYS, **s3server.NO_FILES}.items():
            patch.setenv(name, value)
        patch.setattr(s3, "plain_client", s3_http.plain_client)  # a test may have replaced it
        plain = s3.S3Store(f"s3://{s3server.BUCKET}", endpoint=s3_server.endpoint, region="us-east-1")
        patch.setattr(s3, "plain_client", lambda *_: None)
        boto3 = s3.S3Store(f"s3://{s3server.BUCKET}", endpoint=s3_server.endpoint, region="us-east-1")
        plain.check()
    yield {"plain": plain, "boto3": boto3}
    plain.close()
    boto3.close()


@pytest.fixture
def s3_store(_s3_clients: dict[str, S3Store], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """Open a store below a prefix of its own in the server's bucket."""
    return _opened(_s3_clients["plain"], monkeypatch)


@pytest.fixture
def boto3_store(_s3_clients: dict[str, S3Store], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """As s3_store, through boto3."""
    return _opened(_s3_clients["boto3"], monkeypatch)


def _opened(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in {**s3server.KEYS, **s3server.NO_FILES}.items():
        monkeypatch.setenv(name, value)
    store = object.__new__(type(bucket))  # a copy would open the bucket again, as a pickle does
    vars(store).update(vars(bucket))
    store.prefix = f"{secrets.token_hex(4)}/"
    return store


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    """Start an emulator of Google Cloud Storage with an empty bucket; its address."""
    with gcsserver.gcs_server() as address:
        yield address


@pytest.fixture
def gcs_store(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Open a store below a prefix of its own in the emulator's bucket."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    store = open_store(f"gs://{gcsserver.BUCKET}/{secrets.token_hex(4)}")
    yield store
    store.close()


@pytest.fixture(scope="session")
def azure_server() -> Iterator[dict[str, str]]:
    """Start an emulator of Azure's storage with an empty container; the variables by which it is found."""
    with azureserver.azure_server() as variables:
        yield variables


@pytest.fixture
def azure_store(azure_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Open a store below a prefix of its own in the emulator's container."""
    for name, value in azure_server.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"az://{azureserver.CONTAINER}/{secrets.token_hex(4)}")
    yield store
    store.close()


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    """Open a store in a folder that doesn't exist yet."""
    return FolderStore(str(tmp_path / "store"))


@pytest.fixture
def memory_store() -> MemoryStore:
    """Open a store in this process's memory."""
    return MemoryStore()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def shared_store(request: pytest.FixtureRequest) -> ObjectStore:
    """Open each kind of store that other processes can reach."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture(
    params=[
        "folder",
        "memory",
        pytest.param("s3", marks=pytest.mark.s3),
        pytest.param("boto3", marks=pytest.mark.s3),
        pytest.param("gcs", marks=pytest.mark.s3),
        pytest.param("azure", marks=pytest.mark.s3),
    ]
)
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """Open each kind of store; a test of one has to pass with the others."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found
