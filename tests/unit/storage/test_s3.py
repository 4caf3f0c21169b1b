"""Behavior of buckets only: they can be missing, refuse the keys, be unreachable, or ask for another try."""

from __future__ import annotations

import contextlib
import http.server
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from botocore import auth

from k8sflow.errors import AccessError, ConfigurationError, K8sflowError, OutageError, StorageError
from k8sflow.storage import s3, s3_log
from k8sflow.storage.objects import Buffer
from k8sflow.storage.s3 import S3Store
from k8sflow.storage.s3_client import NoAnswerError, RefusedError
from k8sflow.storage.s3_http import plain_client
from k8sflow.storage.s3_log import S3Log
from tests.cluster.s3 import S3Server
from tests.s3server import BUCKET, KEYS, NO_FILES


@pytest.fixture(autouse=True, params=["plain", "boto3"])
def _client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is about both clients."""
    if request.param == "boto3":
        monkeypatch.setattr(s3, "plain_client", lambda *_: None)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server's keys, without the profile of the user who runs the tests."""
    for name, value in {**KEYS, **NO_FILES}.items():
        monkeypatch.setenv(name, value)


def _error(call: object) -> K8sflowError:
    assert callable(call)
    with pytest.raises(K8sflowError) as caught:
        call()
    return caught.value


@pytest.mark.s3
def test_a_missing_bucket_is_reported(s3_server: S3Server, keys: None) -> None:
    """The error has the settings that name it, whichever call is first."""
    store = S3Store("s3://not-there/prefix", endpoint=s3_server.endpoint, region="us-east-1")
    for call in (
        store.check,
        lambda: store.get("x"),
        lambda: store.put("x", [b""]),
        lambda: list(store.list_keys("x/")),
    ):
        error = _error(call)
        assert isinstance(error, ConfigurationError)
        assert "no bucket 'not-there'" in error.summary
        assert "K8SFLOW_BUCKET" in error.advice


@pytest.fixture(params=[-3600, 3600])
def _wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's clock is an hour off."""
    seconds, now, time_of_boto = request.param, time.time, auth.get_current_datetime
    monkeypatch.setattr(time, "time", lambda: now() + seconds)
    monkeypatch.setattr(auth, "get_current_datetime", lambda: time_of_boto() + timedelta(seconds=seconds))


@pytest.mark.s3
@pytest.mark.usefixtures("_wrong_clock")
def test_a_clock_that_is_an_hour_off_is_corrected_or_reported(
    s3_server: S3Server, keys: None, request: pytest.FixtureRequest
) -> None:
    """The plain client signs with the server's time; with boto3, the error has it. The bucket is not blamed."""
    with contextlib.closing(S3Store(f"s3://{BUCKET}", endpoint=s3_server.endpoint, region="us-east-1")) as store:
        if "plain" in request.node.name:
            assert not store.exists("clock/nothing")  # the answer to HEAD has no code
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda number: store.put(f"clock/{number}", [b"x"]), range(16)))
            assert sorted(store.list_keys("clock/")) == sorted(f"clock/{number}" for number in range(16))
            return
        for call in (store.check, lambda: store.get("x"), lambda: store.exists("x")):
            error = _error(call)
            assert "the clock of this machine is wrong" in error.summary
            assert "GMT" in error.cause


@pytest.mark.s3
@pytest.mark.parametrize(("name", "value"), [("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "wrong")])
def test_wrong_keys_are_reported(
    s3_server: S3Server, keys: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error names the variables."""
    monkeypatch.setenv(name, value)
    store = S3Store(f"s3://{BUCKET}", endpoint=s3_server.endpoint, region="us-east-1")
    for call in (store.check, lambda: store.get("x")):
        error = _error(call)
        assert isinstance(error, AccessError)
        assert "keys" in error.summary
        assert "AWS_" in error.advice


def test_missing_keys_are_reported(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is sent."""
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error = _error(S3Store("s3://b", endpoint="http://127.0.0.1:1").check)
    assert isinstance(error, ConfigurationError)
    assert "AWS_ACCESS_KEY_ID" in error.advice


@pytest.mark.slow
def test_an_unreachable_server_is_reported(keys: None) -> None:
    """The error has its address and the setting."""
    error = _error(S3Store("s3://b", endpoint="http://127.0.0.1:1").check)
    assert isinstance(error, StorageError)
    assert "http://127.0.0.1:1" in error.summary
    assert "K8SFLOW_ENDPOINT" in error.advice


@pytest.mark.parametrize("endpoint", ["127.0.0.1:7070", "nonsense", "http://", "ftp://x"])
def test_an_invalid_endpoint_is_reported(keys: None, endpoint: str) -> None:
    """The message is k8sflow's own."""
    assert "endpoint" in str(_error(lambda: S3Store("s3://b", endpoint=endpoint).check()))


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["s3://", "s3://Not_A_Bucket", "s3://a b", "s3://ü"])
def test_an_invalid_bucket_name_is_reported(keys: None, bucket: str) -> None:
    """It is not a traceback of boto3."""
    _error(lambda: S3Store(bucket, endpoint="http://127.0.0.1:1").check())


class _Answers(http.server.BaseHTTPRequestHandler):
    """A server that answers each PUT with the next of these codes."""

    protocol_version = "HTTP/1.1"
    codes: list[int]
    seen: int

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        code = self.codes[min(self.__class__.seen, len(self.codes) - 1)]
        self.__class__.seen += 1
        name = {
            200: "OK",
            404: "NoSuchKey",
            409: "ConditionalRequestConflict",
            412: "PreconditionFailed",
            500: "InternalError",
            501: "NotImplemented",
        }[code]
        body = b"" if code == 200 else f"<Error><Code>{name}</Code><Message>m</Message></Error>".encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


class _Denies(_Answers):
    """A server that denies access, with the right time."""

    def do_HEAD(self) -> None:
        type(self).seen += 1
        self.send_response(403)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")


@contextmanager
def _answering(*codes: int, base: type[_Answers] = _Answers) -> Iterator[tuple[S3Store, type[_Answers]]]:
    handler = type("Handler", (base,), {"codes": list(codes), "seen": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = S3Store("s3://bucket", endpoint=f"http://127.0.0.1:{server.server_address[1]}", region="us-east-1")
    try:
        yield store, handler
    finally:
        store.close()
        server.shutdown()
        server.server_close()


def test_a_refusal_is_not_put_down_to_a_clock_that_was_corrected(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that denies access also to a request with its own time has another reason."""
    monkeypatch.setattr(s3, "_client", lambda *address: plain_client(*address[:3], 1))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    with _answering(base=_Denies) as (store, handler):
        error = _error(lambda: store.exists("x"))
        assert "denies these keys access" in error.summary
        assert handler.seen == 4  # with the server's time, and twice more because it was denied


@pytest.mark.slow
def test_a_conflict_is_retried_until_it_is_decided(keys: None) -> None:
    """S3 may answer 409 to all simultaneous writers, so only another try finds the winner (I3)."""
    with _answering(409, 409, 200) as (store, handler):
        assert store.put_new("commit", b"x")
        assert handler.seen == 3
    with _answering(409, 412) as (store, _):
        assert not store.put_new("commit", b"x")
    with _answering(409) as (store, _), pytest.raises(StorageError, match="ConditionalRequestConflict"):
        store.put_new("commit", b"x")


@pytest.mark.slow
def test_a_write_that_is_answered_by_not_found_is_retried(keys: None) -> None:
    """A server may answer so right after an outage; the result of the task isn't lost."""
    with _answering(200, 404, 404, 200) as (store, handler):
        assert store.put_new("first", b"x")
        assert store.put_new("commit", b"x")
        assert handler.seen == 4
    with _answering(404) as (store, _), pytest.raises(OutageError, match="answers the write with NoSuchKey"):
        store.put_new("commit", b"x")
    with _answering(200, 404, 200) as (store, handler):
        store.put("first", [b"x"])
        store.put("outcome.json", [b"x"])
        assert handler.seen == 3


@pytest.mark.slow
def test_a_server_error_is_retried(keys: None) -> None:
    """The client does so, and the user doesn't notice."""
    with _answering(500, 200) as (store, handler):
        store.put("x", [b"x"])
        assert handler.seen == 2


def test_a_server_without_conditional_writes_is_reported_at_once(keys: None) -> None:
    """Waiting for it, as for another server error, is in vain."""
    with _answering(200, 501) as (store, handler):
        assert store.put_new("first", b"x")
        error = _error(lambda: store.put_new("commit", b"x"))
        assert isinstance(error, ConfigurationError)
        assert "If-None-Match" in error.cause
        assert handler.seen == 2


@pytest.mark.slow
def test_a_log_keeps_bytes_that_it_failed_to_write(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written later, but not with every write during an outage."""
    monkeypatch.setattr(s3_log, "time", SimpleNamespace(monotonic=lambda: 0.0))  # the interval doesn't pass meanwhile
    with _answering(409) as (store, handler):
        log = S3Log(store, "log")
        with pytest.raises(StorageError):
            log.write(b"one ")
        log.write(b"two ")
        assert handler.seen == 1
        handler.codes = [200]
        log.close()
        assert log._written == len(b"one two ")


@pytest.mark.s3
@pytest.mark.parametrize("call", [lambda s: s.put("a", [b"x"]), lambda s: s.put_new("b", b"x"), S3Store.check])
def test_the_region_is_the_servers(s3_server: S3Server, keys: None, call: Callable[[S3Store], object]) -> None:
    """A server other than AWS may have a region of any name, whatever the setting says."""
    store = S3Store(f"s3://{BUCKET}/region", endpoint=s3_server.endpoint, region="eu-west-7")
    call(store)
    store.put("a", [b"there"])
    assert bytes(store.get("a")) == b"there"


@pytest.mark.s3
def test_a_store_can_be_pickled(s3_store: S3Store) -> None:
    """Loading the pickle opens the bucket again; runs that are read contain a store."""
    s3_store.put("F/a", [b"one"])
    assert bytes(pickle.loads(pickle.dumps(s3_store)).get("F/a")) == b"one"


def test_a_log_is_rewritten_at_growing_intervals(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first interval is a second; later ones are so short that a lost node takes at most five seconds along."""
    now = [0.0]
    monkeypatch.setattr(s3_log.time, "monotonic", lambda: now[0])
    log = s3_store.open_log("log")
    writes = 0
    for second in range(600):
        now[0] = float(second)
        before = log._written  # type: ignore[attr-defined]
        log.write(b"x")
        writes += log._written > before  # type: ignore[attr-defined]
    assert 100 < writes < 160
    log.close()
    assert bytes(s3_store.get("log")) == b"x" * 600


@pytest.mark.s3
@pytest.mark.parametrize("name", ["s3_store", "boto3_store"])
def test_a_read_never_mixes_two_versions_of_an_object(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ranges of a large object are of the same version, or the read fails."""
    store: S3Store = request.getfixturevalue(name)
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 20_000)
    store.put("a", [b"1" * 10_000])
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1000)
    monkeypatch.setattr(s3, "PART_BYTES", 1000)
    with pytest.raises(StorageError, match="PreconditionFailed"), store._translated("a"):
        store._get_ranges("a", 10_000, '"another"')
    assert bytes(store.get("a")) == b"1" * 10_000


@pytest.mark.s3
@pytest.mark.parametrize("name", ["s3_store", "boto3_store"])
def test_an_upload_that_the_server_forgets_begins_again(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of the server in the middle of it, or if the answer to its end is lost."""
    store: S3Store = request.getfixturevalue(name)
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1)
    write, forgotten = store._client.upload_part, []

    def forgets(key: str, upload: str, number: int, body: Sequence[Buffer]) -> str:
        if len(forgotten) < 2:
            forgotten.append(upload)
            store._client.abandon_upload(key, upload)
        return write(key, upload, number, body)

    monkeypatch.setattr(store._client, "upload_part", forgets)
    store.put("large", [b"a" * (9 << 20), b"b" * (9 << 20)])
    assert bytes(store.get("large")) == b"a" * (9 << 20) + b"b" * (9 << 20)
    assert forgotten
    monkeypatch.setattr(store._client, "end_upload", _unknown)
    with pytest.raises(OutageError, match="lost 8 uploads"):
        store.put("large", [b"c"])


def _unknown(*_: object, **__: object) -> None:
    raise RefusedError("NoSuchUpload", 404, "unknown")


@pytest.mark.s3
@pytest.mark.parametrize("name", ["s3_store", "boto3_store"])
def test_an_upload_begins_again_though_its_parts_can_not_be_deleted(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys may lack the right to do that, and botocore has errors of its own."""
    store: S3Store = request.getfixturevalue(name)
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1)
    write, errors = store._client.upload_part, [RefusedError("NoSuchUpload", 404, "unknown")]

    def fails(*call: Any) -> str:
        if errors:
            raise errors.pop()
        return write(*call)

    def abandon(*_: object) -> None:
        raise AccessError("denied.") if name == "s3_store" else ValueError("odd")

    monkeypatch.setattr(store._client, "upload_part", fails)
    monkeypatch.setattr(store._client, "abandon_upload", abandon)
    store.put("large", [b"abc"])
    assert bytes(store.get("large")) == b"abc"


@pytest.mark.s3
def test_an_object_that_is_written_again_meanwhile_is_read_again(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Branches that save equal values at a time write the same blob; but one that changes always is an error."""
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1)
    s3_store.put("large", [b"abc"])
    read, replaced = s3_store._client.read, [True]

    def reads(key: str, span: str = "", etag: str = "") -> Any:
        if span and replaced:
            replaced.pop()
            raise RefusedError("PreconditionFailed", 412, "another version")
        return read(key, span, etag)

    monkeypatch.setattr(s3_store._client, "read", reads)
    assert bytes(s3_store.get("large")) == b"abc"
    replaced += [True] * 9
    with pytest.raises(StorageError, match="replaced 3 times"):
        s3_store.get("large")


@pytest.mark.s3
@pytest.mark.parametrize("name", ["s3_store", "boto3_store"])
def test_no_buffer_stays_exported_after_a_part_that_failed(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner can resize it at once; and the outage that the failure began has ended."""
    store: S3Store = request.getfixturevalue(name)
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1)
    write, errors = store._client.upload_part, [NoAnswerError("cut off")] * 4

    def fails(*call: Any) -> str:
        if errors:
            raise errors.pop()
        return write(*call)

    monkeypatch.setattr(store._client, "upload_part", fails)
    data = bytearray(b"abc")
    store.put("large", [data])
    data.extend(b"more")
    assert bytes(store.get("large")) == b"abc"
    assert not store.patience.outage.is_on
