"""Mistakes in calls of ``S3``, and servers that refuse, are missing, or break off: each its own type and text."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from k8sflow import S3, exception
from k8sflow.errors import (
    AccessError,
    BucketNotFoundError,
    ConfigurationError,
    ObjectNotFoundError,
    S3Error,
    S3UrlError,
    StorageError,
    UnreachableError,
)
from k8sflow.flow.spec import FlowSpec
from k8sflow.s3 import S3GetObject, S3PutObject, download
from k8sflow.s3.bucket import Found

pytestmark = pytest.mark.s3


def _calls(s3: S3) -> list[Callable[[], Any]]:
    return [
        lambda: s3.get("x"),
        lambda: s3.get("x", return_missing=True),
        lambda: s3.get_many(["x", "y"]),
        lambda: s3.info("x"),
        lambda: s3.info("x", return_missing=True),
        s3.list_paths,
        s3.get_all,
        lambda: s3.put("x", "X"),
        lambda: s3.put("x", "X", overwrite=False),
        lambda: s3.put_many([("x", "X"), ("y", "Y")]),
    ]


def test_a_missing_bucket_is_reported_by_every_call(root: str) -> None:
    """It isn't a missing object, also not with return_missing."""
    for number in range(10):
        with S3(s3root="s3://not-there/p") as s3, pytest.raises(BucketNotFoundError, match="no bucket 'not-there'"):
            _calls(s3)[number]()


def test_wrong_keys_are_reported_at_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with S3(s3root=root) as s3:
        for call in _calls(s3):
            with pytest.raises(AccessError, match="AWS_SECRET_ACCESS_KEY"):
                call()


def test_missing_keys_are_reported(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with S3(s3root=root) as s3, pytest.raises(AccessError, match="there are no keys for"):
        s3.get("x")


def test_a_server_that_is_not_there_is_reported(root: str) -> None:
    with S3(s3root=root, endpoint="http://127.0.0.1:1") as s3, pytest.raises(UnreachableError) as caught:
        s3.get("x")
    assert "http://127.0.0.1:1 can't be reached" in caught.value.summary
    assert "S3(endpoint=…)" in caught.value.advice


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: S3(s3root="https://x/y"), "'https://x/y' is not a URL of S3"),
        (lambda: S3(s3root="s3:///y"), "'s3:///y' has no bucket"),
        (lambda: S3(s3root="s3://a b/y"), "has no valid bucket: 'a b'"),
        (lambda: S3().get("x"), "'x' is not a URL, and this S3 was made without one"),
        (lambda: S3().get(), "a call without a key"),
        (lambda: S3().get_all(), "a call without a key"),
        (lambda: S3().list_paths(), "a call without a key"),
        (lambda: S3().get("s3://tests"), "s3://tests is a bucket"),
        (lambda: S3(s3root="s3://tests/p").get("s3://tests/p/x"), "are relative to s3://tests/p"),
        (lambda: S3(s3root="s3://tests/p").get(""), "'' is not the key of an object"),
        (lambda: S3(s3root="s3://tests/p").put("/", "x"), "'/' is not the key of an object"),
        (lambda: S3(s3root="s3://tests/p").get(3), "a key is a text, and this is int: 3"),
        (lambda: S3(s3root="s3://tests/p").get("\ud800"), "is not a text that UTF-8 can hold"),
        (lambda: S3(s3root="s3://tests/p").put("../x", "x"), "s3://tests/p/../x has a part '.' or '..'"),
        (lambda: S3(s3root="s3://tests/p").put_many([("a/./x", "x")]), "s3://tests/p/a/./x has a part '.' or '..'"),
        (lambda: S3().put_files([("s3://tests/..", __file__)]), "s3://tests/.. has a part '.' or '..'"),
        (lambda: S3(s3root="s3://tests/p").put("a\0", "x"), "has a NUL character"),
    ],
)
def test_urls_and_keys_that_mean_nothing(root: str, wrong: Callable[[], Any], message: str) -> None:
    with pytest.raises(S3UrlError) as caught:
        wrong()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s3: s3.get_many("x"), "Write ['x']"),
        (lambda s3: s3.put("x", 3), "the value for 'x' is int"),
        (lambda s3: s3.put("x", None), "the value for 'x' is NoneType"),
        (lambda s3: s3.put("x", "X", metadata={"k": object()}), "the metadata of 'x' can't be written as JSON"),
        (lambda s3: s3.put_many(["x"]), "'x' is not a pair of a key and a value"),
        (lambda s3: s3.get(S3GetObject("x", 2.0, 3)), "a range is given in whole bytes, and this is float: 2.0"),
        (lambda s3: s3.get(S3GetObject("x", 0, "3")), "a range is given in whole bytes, and this is str: '3'"),
        (lambda _: S3(run=3), "S3(run=3) is neither a flow nor a run"),
        (lambda _: S3(bucket="b"), "needs run="),
        (lambda _: S3(run=SimpleNamespace(pathspec="F/1"), s3root="s3://b"), "Give one of them"),
    ],
)
def test_calls_that_are_wrong(root: str, wrong: Callable[[S3], Any], message: str) -> None:
    with S3(s3root=root) as s3, pytest.raises(S3Error) as caught:
        wrong(s3)
    assert message in str(caught.value)


def test_too_much_metadata_is_refused_with_the_limit(root: str) -> None:
    """By S3, as soon as it is more than 2 kB; the test's server takes some more."""
    with S3(s3root=root) as s3, pytest.raises(StorageError):
        s3.put("x", "X", metadata={"k": "v" * 2_000_000})


def test_the_data_of_a_run_is_below_its_flow(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the bucket of the settings, or another one."""
    run = SimpleNamespace(pathspec="Train/run-1")
    monkeypatch.setenv("K8SFLOW_BUCKET", root.removeprefix("s3://"))
    with S3(run=run) as s3:
        assert s3.put("x", "X") == f"{root}/Train/data/run-1/x"
    with S3(run=run, prefix="p") as s3:
        assert repr(s3) == "<S3 s3://tests/p/Train/data/run-1>"
    monkeypatch.delenv("K8SFLOW_BUCKET")
    with S3(run=run, bucket="b", prefix="p/q/") as s3:
        assert repr(s3) == "<S3 s3://b/p/q/Train/data/run-1>"
    with pytest.raises(ConfigurationError, match="Set K8SFLOW_BUCKET=name"):
        S3(run=run)


def test_a_flow_outside_of_a_step_has_no_run(root: str) -> None:
    with pytest.raises(S3Error, match="was called outside of a step"):
        S3(run=object.__new__(FlowSpec))


def test_errors_have_metaflows_names(root: str) -> None:
    with S3(s3root=root) as s3, pytest.raises(exception.MetaflowS3NotFound):
        s3.get("nowhere")
    with pytest.raises(exception.MetaflowS3URLException):
        S3(s3root="x")
    assert exception.MetaflowS3NotFound is ObjectNotFoundError


# ---------------------------------------------------------------------- a scripted server


@contextmanager
def _server(answers: list[tuple[int, bytes, int]], encryptions: list[str | None]) -> Iterator[str]:
    """Gives these answers in turn, the last one for ever: status, body, and how many bytes of the body it sends.

    Keeps the encryptions that objects are written with.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            status, body, sent = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body[:sent])
            self.close_connection = sent < len(body)

        def do_PUT(self) -> None:
            if self.headers["If-None-Match"]:
                self.send_response(501)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            encryptions.append(self.headers["x-amz-server-side-encryption"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_denied_object_is_reported(root: str) -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    with (
        _server([(403, body, len(body))], []) as endpoint,
        S3(s3root="s3://b/p", endpoint=endpoint) as s3,
        pytest.raises(AccessError, match=r"denies these keys access to s3://b/p/x \(AccessDenied\)"),
    ):
        s3.get("x", return_missing=True)


def test_an_answer_that_breaks_off_is_read_again(root: str) -> None:
    """After the server has answered once, a call waits for it; the file has all bytes, once."""
    body = b"0123456789" * 1000
    answers = [(200, body, len(body)), (200, body, 5000), (503, b"", 0), (200, body, len(body))]
    with _server(answers, []) as endpoint, S3(s3root="s3://b/p", endpoint=endpoint) as s3:
        assert s3.get("x").blob == body
        assert s3.get("x").blob == body
    assert len(answers) == 1


@pytest.mark.parametrize(("offset", "length"), [(2, 3), (-4, None), (0, 3), (5, None)])
def test_a_server_that_ignores_ranges_is_an_error(root: str, offset: int, length: int | None) -> None:
    """As some proxies do: all bytes would be taken for the wanted ones."""
    body = b"0123456789"
    with _server([(200, body, len(body))], []) as endpoint, S3(s3root="s3://b/p", endpoint=endpoint) as s3:
        assert s3.get(S3GetObject("x", 0, 10)).blob == body
        assert s3.get(S3GetObject("x", -10, None)).blob == body
        with pytest.raises(StorageError, match=r"the server ignored the range bytes=.* of s3://b/p/x"):
            s3.get(S3GetObject("x", offset, length))


def test_a_server_that_ignores_the_ranges_of_a_large_object_is_an_error(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_LARGE_BYTES", 10)
    monkeypatch.setattr(download, "PART_BYTES", 6)
    body = b"0123456789"
    with (
        _server([(200, body, len(body))], []) as endpoint,
        S3(s3root="s3://b/p", endpoint=endpoint) as s3,
        pytest.raises(StorageError, match=r"the server ignored the range bytes=.* of s3://b/p/x"),
    ):
        s3.get("x")


def test_a_server_without_conditional_writes_is_reported_at_once(root: str) -> None:
    """Waiting for it would not help."""
    with (
        _server([(404, b"", 0)], []) as endpoint,
        S3(s3root="s3://b/p", endpoint=endpoint) as s3,
        pytest.raises(ConfigurationError, match="can't do what k8sflow needs"),
    ):
        s3.put("x", "X", overwrite=False)


def test_an_object_that_is_deleted_after_it_was_listed_is_reported(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3(s3root=root) as s3:
        s3.put_many([("d/a", "A"), ("d/b", "B")])
        listed = s3._found
        monkeypatch.setattr(s3, "_found", lambda *words: [*listed(*words), (listed(*words)[0][0], Found("d/c", 1))])
        with pytest.raises(ObjectNotFoundError, match=r"there is no s3://.*d/c, though it was listed"):
            s3.get_recursive(["d"])


def test_encryption_is_that_of_the_call_or_else_of_the_settings(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str | None] = []
    monkeypatch.setenv("K8SFLOW_S3_WRITE_HEADERS", "x-amz-server-side-encryption=aws:kms")
    with _server([(500, b"", 0)], found) as endpoint:
        with S3(s3root="s3://b/p", endpoint=endpoint) as s3:
            s3.put("x", "X")
            s3.put_many([S3PutObject("x", "X", encryption="aws:kms:dsse")])
        with S3(s3root="s3://b/p", endpoint=endpoint, encryption="AES256") as s3:
            s3.put("x", "X")
    assert found == ["aws:kms", "aws:kms:dsse", "AES256"]
