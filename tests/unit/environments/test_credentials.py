"""Credentials of private indexes, for the wheels that go into the bucket."""

from __future__ import annotations

import base64
import hashlib
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k8sflow.environments import credentials
from k8sflow.environments.lock import Wheel
from k8sflow.environments.wheels import fetched

ADDRESS = urllib.parse.urlsplit("https://index.example/files/x.whl")


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_CONFIG_FILE", "UV_EXTRA_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_they_come_from_the_url_of_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://me:p%40ss@index.example/simple")
    assert credentials.of(ADDRESS, tmp_path) == ("me", "p@ss")
    assert credentials.of(ADDRESS._replace(netloc="other.example"), tmp_path) is None


def test_they_come_from_the_variables_of_a_named_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uv.toml").write_text('[[index]]\nname = "our-own"\nurl = "https://index.example/simple"\n')
    monkeypatch.setenv("UV_INDEX_OUR_OWN_USERNAME", "me")
    monkeypatch.setenv("UV_INDEX_OUR_OWN_PASSWORD", "secret")
    assert credentials.of(ADDRESS, tmp_path) == ("me", "secret")


def test_they_come_from_the_netrc_that_a_variable_names(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine index.example login me password secret\n")
    assert credentials.of(ADDRESS, tmp_path) == ("me", "secret")


class _Index(BaseHTTPRequestHandler):
    """An index with a password, which redirects to a storage service that refuses one."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        wanted = f"Basic {base64.b64encode(b'me:secret').decode()}"
        if self.path.startswith("/files"):
            self.send_response(302 if given == wanted else 401)
            self.send_header("Location", "/signed")
            self.end_headers()
            return
        self.send_response(400 if given else 200)
        self.end_headers()
        self.wfile.write(b"" if given else b"wheel")

    def log_message(self, *_: object) -> None:
        """Nothing is shown."""


@pytest.fixture
def index() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Index)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_they_do_not_follow_a_redirect(tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://me:secret@{index}/simple")
    wheel = Wheel(f"http://{index}/files/x.whl", hashlib.sha256(b"wheel").hexdigest())
    assert fetched("the packages of step a", wheel, tmp_path) == b"wheel"
