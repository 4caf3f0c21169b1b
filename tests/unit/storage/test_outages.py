"""A real S3 server that stops and starts again: nothing is lost, and waiting calls report it."""

from __future__ import annotations

import contextlib
import gc
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from k8sflow.errors import OutageError, UnreachableError
from k8sflow.outages import Notice
from k8sflow.storage import patience as patience_module
from k8sflow.storage import s3, s3_log
from k8sflow.storage.patience import Patience
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from k8sflow.task.host.uploads import LogUploads
from tests.s3server import BUCKET, KEYS, NO_FILES, Server
from tests.support import wait_for

pytestmark = pytest.mark.s3


@pytest.fixture(params=["plain", "boto3"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    if request.param == "boto3":
        monkeypatch.setattr(s3, "plain_client", lambda *_: None)
    for name, value in {**KEYS, **NO_FILES}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(patience_module, "_LONGEST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(s3_log, "_FIRST_PAUSE_SECONDS", 0.0)  # every piece is written at once
    folder = tmp_path / "s3"
    folder.mkdir()
    found = Server(folder)
    yield found
    found.stop()


def opened(server: Server, patience: Patience) -> S3Store:
    store = S3Store(f"s3://{BUCKET}", endpoint=server.endpoint, region="us-east-1", patience=patience)
    store.check()
    return store


def refused(store: S3Store, count: int = 1) -> None:
    """Returns when this many tries of the store have failed since the call."""
    tries = [0]
    failed = store.patience.failed

    def counted(error: OutageError, lasted_seconds: float) -> None:
        tries[0] += 1
        failed(error, lasted_seconds)

    store.patience.failed = counted  # type: ignore[method-assign]
    wait_for(lambda: tries[0] >= count)
    store.patience.failed = failed  # type: ignore[method-assign]


@pytest.mark.parametrize("server", ["plain"], indirect=True)  # the retries inside botocore draw from it
def test_retries_dont_draw_from_the_generator_that_the_users_code_seeded(server: Server) -> None:
    store = opened(server, Patience(300))
    server.stop()
    random.seed(7)
    before = random.getstate()
    waiting = threading.Thread(target=lambda: list(store.list_keys("F/")), daemon=True)
    waiting.start()
    refused(store, 2)
    assert random.getstate() == before
    server.start()
    waiting.join()


@pytest.mark.slow
def test_a_tasks_log_is_complete_after_an_outage(server: Server) -> None:
    """Written before it, during it and after it; nothing is missing, and the thread is alive throughout."""
    store = opened(server, Patience(300))
    uploads = LogUploads({"stdout": RunStore(store, "F", "r").open_log("work", "0", 0, "stdout")})
    uploads.add("stdout", b"before ")
    key = "F/runs/r/tasks/work/0/0/stdout"
    wait_for(lambda: store.tail(key, 0) == b"before ")
    server.stop()
    uploads.add("stdout", b"during ")
    refused(store, 2)
    uploads.add("stdout", b"still ")
    server.start()
    uploads.add("stdout", b"after")
    assert uploads.close() == ""
    assert store.tail(key, 0) == b"before during still after"


@pytest.mark.slow
def test_a_log_that_fails_again_and_again_can_always_be_written(server: Server) -> None:
    """Without patience each write fails, and none of them keeps the log from growing (its buffer was exported)."""
    store = opened(server, Patience(0))
    log = store.open_log("log")
    log.write(b"a")
    server.stop()
    for _ in range(2):
        log._next_write = 0.0  # type: ignore[attr-defined]
        with pytest.raises(OutageError):
            log.write(b"b")
    assert log.missing == 2
    server.start()
    log.close()
    assert store.tail("log", 0) == b"abb"


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])
def test_no_buffer_stays_exported_after_a_failed_try(
    server: Server, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """A bytearray that was an artifact can be changed by its owner at once, not after the next garbage collection."""
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 100 if large else 10_000)
    store = opened(server, Patience(0))
    server.stop()
    data = bytearray(1000)
    gc.disable()
    try:
        with contextlib.suppress(OutageError):
            store.put("x", [memoryview(data)[:500], np.zeros(3).data])
        data.extend(b"more")
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_commit_waits_for_the_store_and_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the outage is reported too."""
    monkeypatch.setattr("k8sflow.outages.REPORT_AFTER_SECONDS", 0.0)
    said: list[Notice] = []
    store = opened(server, Patience(600, report=said.append))
    server.stop()
    thread = threading.Thread(target=lambda: store.put_new("commit", b"result"))
    thread.start()
    wait_for(lambda: said)
    assert f"{server.endpoint} can't be reached" in said[0].text
    assert "Retrying for up to 10 min" in said[0].text
    server.start()
    thread.join(30)
    assert bytes(store.get("commit")) == b"result"
    assert [notice.is_over for notice in said] == [False, True]


@pytest.mark.slow
def test_the_error_at_the_end_of_the_patience_has_advice(server: Server) -> None:
    """The endpoint is not blamed if the server has answered before."""
    store = opened(server, Patience(0.5))
    server.stop()
    with pytest.raises(OutageError) as raised:
        store.get("x")
    assert "answered before" in raised.value.cause
    assert "resume" in raised.value.advice
    assert "storage_patience_seconds" in raised.value.advice


@pytest.mark.slow
def test_a_process_that_ends_can_shorten_the_wait(server: Server) -> None:
    """This includes the wait of a call in another thread."""
    store = opened(server, Patience(600))
    server.stop()
    errors: list[Exception] = []

    def read() -> None:
        try:
            store.get("x")
        except OutageError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    refused(store)
    store.limit_patience(0)
    thread.join(30)
    assert len(errors) == 1


@pytest.mark.slow
def test_an_endpoint_that_never_answered_is_waited_for_only_on_request(server: Server) -> None:
    """A pod waits, since its driver has reached the server; people see a wrong endpoint at once."""
    server.stop()
    store = S3Store(f"s3://{BUCKET}", endpoint=server.endpoint, region="us-east-1", patience=Patience(600))
    with pytest.raises(OutageError) as raised:
        store.check()
    assert "K8SFLOW_ENDPOINT" in raised.value.advice
    waiting = S3Store(f"s3://{BUCKET}", endpoint=server.endpoint, region="us-east-1", patience=Patience(600, 600))
    thread = threading.Thread(target=waiting.check)
    thread.start()
    refused(waiting)
    server.start()
    thread.join(30)
    assert waiting.patience.has_answered


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:9", "the connection was refused, so nothing listens there"),
        ("http://s3.nowhere.invalid:9000", "its name can't be resolved by DNS"),
    ],
)
def test_an_address_that_can_not_be_reached_is_an_error_with_the_reason(
    endpoint: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the system's reason, which botocore's message lacks."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    store = S3Store(f"s3://{BUCKET}", endpoint=endpoint, region="us-east-1", patience=Patience(0, 0))
    with pytest.raises(UnreachableError, match=words):
        store.get("key")


@pytest.mark.slow
def test_retries_outages_and_reconnects_are_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Each record has its reason, long before the user gets a report."""
    caplog.set_level("DEBUG", "k8sflow")
    store = opened(server, Patience(600))
    server.stop()
    thread = threading.Thread(target=lambda: store.put_new("commit", b"result"))
    thread.start()
    refused(store, 2)
    server.start()
    thread.join(30)
    server.stop()
    store.limit_patience(0)
    with pytest.raises(OutageError):
        store.get("commit")

    assert {record.name for record in caplog.records} == {"k8sflow.storage.patience", "k8sflow.storage.s3"}
    messages = [record.getMessage() for record in caplog.records]
    assert f"Opened s3://{BUCKET} at {server.endpoint}." in messages
    retry = rf"{server.endpoint} can't be reached for s3://{BUCKET}/commit: .*\. Retrying in \d\.\d s\."
    assert sum(re.fullmatch(retry, message) is not None for message in messages) >= 2
    assert any(re.fullmatch(r"The bucket answers again, after \d+\.\d s\.", message) for message in messages)
    assert messages[-1].endswith("Giving up after 0.0 s.")
