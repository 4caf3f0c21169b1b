"""Temporary keys that expire while a process uses them, as a server says it that has none of its own."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k8sflow.errors import AccessError
from k8sflow.storage.patience import Patience
from k8sflow.storage.s3 import S3Store
from k8sflow.storage.s3_boto import BotoClient
from k8sflow.storage.s3_http import HttpClient

EXPIRED = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
EMPTY = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
THREADS = 6


class _Server(http.server.BaseHTTPRequestHandler):
    """Accepts one key; any other has expired."""

    valid = "first"

    def do_GET(self) -> None:
        is_valid = f"Credential={self.valid}/" in self.headers["Authorization"]
        text = EMPTY if is_valid else EXPIRED
        self.send_response(200 if is_valid else 400)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Server]]:
    """The handler of a server, whose address is in its endpoint."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    made = type("Handler", (_Server,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
    made.endpoint = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def store_at(handler: type[_Server]) -> S3Store:
    return S3Store("s3://b", endpoint=handler.endpoint, region="r", patience=Patience(5, 5))  # type: ignore[attr-defined]


def write_keys(folder: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Keys in the file of a profile, as tools write them."""
    file = folder / "credentials"
    file.write_text(f"[p]\naws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = t\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
    monkeypatch.setenv("AWS_PROFILE", "p")


def test_keys_of_the_environment_end_with_advice(handler: type[_Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process keeps its environment, so nothing is tried again."""
    for name, value in {"ACCESS_KEY_ID": "first", "SECRET_ACCESS_KEY": "s", "SESSION_TOKEN": "t"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    store = store_at(handler)
    assert isinstance(store._client, HttpClient)
    store.check()
    handler.valid = "second"
    with pytest.raises(AccessError, match="any more: they have expired") as error:
        store.check()
    assert "`resume` the run" in error.value.advice
    assert "Secret" in error.value.advice
    store.close()


def test_keys_of_a_profile_are_read_again(
    handler: type[_Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a tool has written others; as long as it has not, the error comes at once."""
    write_keys(tmp_path, monkeypatch, "first")
    store = store_at(handler)
    assert isinstance(store._client, BotoClient)
    store.check()
    handler.valid = "second"
    with pytest.raises(AccessError, match="any more: they have expired"):
        store.check()
    write_keys(tmp_path, monkeypatch, "second")
    store.check()
    store.close()


def test_all_threads_that_were_refused_use_the_new_keys(
    handler: type[_Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them reads the new keys; for the others they are new too."""
    write_keys(tmp_path, monkeypatch, "first")
    store = store_at(handler)
    together = threading.Barrier(THREADS, timeout=60)
    handler.valid = "second"
    write_keys(tmp_path, monkeypatch, "second")
    do_get = handler.do_GET

    def refuse_together(self: _Server) -> None:
        if "Credential=first/" in self.headers["Authorization"]:
            together.wait()
        do_get(self)

    monkeypatch.setattr(handler, "do_GET", refuse_together)
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(store.check) for _ in range(THREADS)]:
            done.result()
    store.close()
