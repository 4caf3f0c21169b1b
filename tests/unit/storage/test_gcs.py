"""The parts and the tokens of the store in Google Cloud Storage; what all stores have is in test_objects.py."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from k8sflow import roots
from k8sflow.access_tokens import Token
from k8sflow.errors import AccessError, BucketNotFoundError, ConfigurationError, OutageError
from k8sflow.storage import gcs, s3
from k8sflow.storage.gcs import GcsClient
from k8sflow.storage.open_store import open_store
from k8sflow.storage.s3 import S3Store


@pytest.mark.s3
@pytest.mark.parametrize("size", [70_000, 2_500_003])
def test_parts_are_composed_in_their_order(gcs_store: S3Store, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """More than 32 parts, the most that can be composed at a time, take several rounds; nothing remains of them."""
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1)
    monkeypatch.setattr(s3, "PART_BYTES", 1 << 16)
    data = b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]

    gcs_store.put("F/a", [data[:1000], memoryview(data)[1000:]])
    assert bytes(gcs_store.get("F/a")) == data
    assert list(gcs_store.list_keys("F/")) == ["F/a"]


@pytest.mark.s3
def test_an_object_that_is_replaced_meanwhile_is_not_mixed_with_the_new_one(
    gcs_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = gcs_store._client
    gcs_store.put("F/a", [b"old"])
    found = client.read(f"{gcs_store.prefix}F/a")
    version = found.etag
    found.close()
    gcs_store.put("F/a", [b"new"])
    with pytest.raises(s3.RefusedError, match="replaced"):
        client.read(f"{gcs_store.prefix}F/a", "bytes=1-", version)


@pytest.mark.s3
def test_a_missing_bucket_has_its_own_error(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(roots.EMULATOR_OF_GOOGLE, gcs_server.removeprefix("http://"))
    store = open_store("gs://missing/prefix")
    with pytest.raises(BucketNotFoundError, match="no bucket 'missing'"):
        list(store.list_keys("a/"))
    store.close()


@dataclass
class Google:
    """The servers of Google that a client talks to, as far as tokens matter."""

    address: str = ""
    most_uses: int = 1_000
    expires_in: float = 3600
    refusal: str = ""
    refusal_status: int = 400
    ahead: float = 0.0
    accepts: Callable[[str], bool] = lambda _: True
    listing_statuses: list[int] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    def token(self, sent: str) -> tuple[int, dict[str, Any]]:
        if self.refusal:
            return self.refusal_status, {"error": self.refusal}
        if not self.accepts(sent):
            return 400, {"error": "invalid_grant"}
        self.issued.append(sent)
        return 200, {"access_token": f"t{len(self.issued)}", "expires_in": self.expires_in}

    def listing(self, token: str) -> tuple[int, dict[str, Any]]:
        self.used.append(token)
        if self.listing_statuses:
            return self.listing_statuses.pop(), {}
        if token != f"Bearer t{len(self.issued)}" or self.used.count(token) > self.most_uses:
            return 401, {"error": {"code": 401, "message": "Invalid Credentials"}}
        return 200, {}


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Google]:
    """Servers at one address; the environment has no credentials but those that a test adds."""
    found = Google()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/computeMetadata"):
                self._answer(*found.token(self.headers["Metadata-Flavor"]))
            else:
                self._answer(*found.listing(self.headers["Authorization"]))

        def do_POST(self) -> None:
            self._answer(*found.token(self.rfile.read(int(self.headers["Content-Length"])).decode()))

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + found.ahead, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        found.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(roots, "SERVER_OF_GOOGLE", found.address)
        monkeypatch.setattr(gcs, "SERVER_OF_GOOGLE", found.address)
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def client(google: Google, tmp_path: Path) -> Iterator[Callable[..., GcsClient]]:
    """Return a client with the given environment."""
    made = []

    def make(**variables: str) -> GcsClient:
        host = google.address.removeprefix("http://")
        made.append(
            GcsClient(
                "b", roots.endpoint_of_google({}), 4, {"HOME": str(tmp_path), "GCE_METADATA_HOST": host, **variables}
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def _login(google: Google, folder: Path) -> Path:
    """The file that ``gcloud auth application-default login`` writes."""
    file = folder / ".config/gcloud/application_default_credentials.json"
    file.parent.mkdir(parents=True)
    fields = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    file.write_text(json.dumps({**fields, "token_uri": f"{google.address}/token"}))
    return file


def test_a_pod_asks_the_metadata_server(google: Google, client: Callable[..., GcsClient]) -> None:
    """One token serves many requests."""
    found = client()
    found.page("a/")
    found.page("a/")
    assert (google.issued, google.used) == (["Google"], ["Bearer t1", "Bearer t1"])


def test_a_person_logs_in_once(google: Google, client: Callable[..., GcsClient], tmp_path: Path) -> None:
    _login(google, tmp_path)
    client().page("a/")
    assert google.issued == ["grant_type=refresh_token&client_id=c&client_secret=s&refresh_token=r"]


def _key_of_service_account(google: Google, folder: Path, kind: str = "PKCS8") -> tuple[Path, RSAPublicKey]:
    key = rsa.generate_private_key(65537, 2048)
    form = serialization.PrivateFormat.PKCS8 if kind == "PKCS8" else serialization.PrivateFormat.TraditionalOpenSSL
    text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    file = folder / "key.json"
    fields = {"type": "service_account", "client_email": "k8sflow@p.test", "private_key_id": "1", "private_key": text}
    file.write_text(json.dumps({**fields, "token_uri": f"{google.address}/token"}))
    return file, key.public_key()


def _claims(sent: str, key: RSAPublicKey) -> dict[str, Any]:
    """The claims of a request for a token, whose signature is right."""
    text, _, signature = parse_qs(sent)["assertion"][0].rpartition(".")
    decoded = [base64.urlsafe_b64decode(f"{part}==") for part in (*text.split("."), signature)]
    key.verify(decoded[2], text.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert json.loads(decoded[0]) == {"alg": "RS256", "typ": "JWT", "kid": "1"}
    return dict(json.loads(decoded[1]))


@pytest.mark.parametrize("kind", ["PKCS8", "PKCS1"])
def test_a_service_account_signs_its_requests_for_tokens(
    google: Google, client: Callable[..., GcsClient], tmp_path: Path, kind: str
) -> None:
    """Without any package, since a pod's image may have none."""
    file, key = _key_of_service_account(google, tmp_path, kind)
    client(GOOGLE_APPLICATION_CREDENTIALS=str(file)).page("a/")
    claims = _claims(google.issued[0], key)
    assert (claims["iss"], claims["aud"]) == ("k8sflow@p.test", f"{google.address}/token")
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 600


def test_a_service_account_signs_with_the_servers_time_where_the_clocks_differ(
    google: Google, client: Callable[..., GcsClient], tmp_path: Path
) -> None:
    file, key = _key_of_service_account(google, tmp_path)
    google.ahead = 3600
    google.accepts = lambda sent: abs(_claims(sent, key)["iat"] - time.time() - google.ahead) < 600
    google.expires_in = 60  # so each request needs a new token
    found = client(GOOGLE_APPLICATION_CREDENTIALS=str(file))
    found.page("a/")
    assert len(google.issued) == 1
    google.ahead = 0  # this machine's clock was set meanwhile
    found.page("a/")
    assert len(google.issued) == 2


def test_a_token_is_replaced_before_it_ends(google: Google, client: Callable[..., GcsClient]) -> None:
    google.expires_in = 60
    found = client()
    found.page("a/")
    found.page("a/")
    assert google.used == ["Bearer t1", "Bearer t2"]


def test_a_refused_token_is_replaced_by_the_next_try(google: Google, client: Callable[..., GcsClient]) -> None:
    google.most_uses = 1
    found = client()
    found.page("a/")
    with pytest.raises(AccessError, match="doesn't accept the credentials for gs://b: Invalid Credentials"):
        found.page("a/")
    found.page("a/")


@pytest.mark.parametrize("logs_in", [True, False])
def test_an_outage_of_the_tokens_server_is_not_a_refusal(
    google: Google, client: Callable[..., GcsClient], tmp_path: Path, logs_in: bool
) -> None:
    """A token that has not ended yet is used on; without one, calls wait as for the bucket."""
    if logs_in:
        _login(google, tmp_path)
    google.expires_in = 60
    found = client()
    found.page("a/")
    google.refusal, google.refusal_status = "busy", 503
    found.page("a/")
    assert google.used == ["Bearer t1", "Bearer t1"]
    assert found._tokens is not None
    found._tokens.token = Token("t1", 0.0)
    with pytest.raises(OutageError, match="token"):
        found.page("a/")


def test_a_busy_server_is_asked_again(google: Google, client: Callable[..., GcsClient]) -> None:
    google.listing_statuses = [408, 429]
    client().page("a/")
    assert len(google.used) == 3


def test_refused_credentials_are_named(google: Google, client: Callable[..., GcsClient], tmp_path: Path) -> None:
    file = _login(google, tmp_path)
    google.refusal = "invalid_grant"
    with pytest.raises(AccessError, match=f"Google refuses the credentials in {file}: .*invalid_grant"):
        client().page("a/")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "has no credentials of Google"),
        ("[]", "has no credentials of Google"),
        ('{"type": "authorized_user"}', "give no token: 'client_id'"),
        ('{"type": "service_account"}', "can't be used as the key of a service account: it lacks 'client_email'"),
        ('{"type": "service_account", "client_email": "a", "private_key": "x"}', "no private key in the format PEM"),
        ('{"type": "service_account", "client_email": "a", "private_key": 1}', "can't be used as the key"),
        ('{"type": "external_account"}', "need the package google-auth|can't be used"),
    ],
)
def test_a_useless_file_is_named(client: Callable[..., GcsClient], tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(content)
    with pytest.raises(AccessError, match=message):
        client(GOOGLE_APPLICATION_CREDENTIALS=str(file)).page("a/")


def test_a_missing_file_is_named(client: Callable[..., GcsClient]) -> None:
    with pytest.raises(AccessError, match="there is no such file"):
        client(GOOGLE_APPLICATION_CREDENTIALS="/nowhere/key.json")


def test_without_any_credentials_the_error_says_where_they_may_be(
    google: Google, client: Callable[..., GcsClient]
) -> None:
    google.refusal = "no account"
    with pytest.raises(AccessError, match=r"no file with some, and the metadata server .* has none"):
        client().page("a/")


@pytest.mark.parametrize("address", ["http://[::1", "http://host/path", "ftp://host"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ConfigurationError, match="STORAGE_EMULATOR_HOST is "):
        GcsClient("b", address, 1, {})


def test_a_proxy_is_not_ignored(google: Google, client: Callable[..., GcsClient]) -> None:
    with pytest.raises(ConfigurationError, match=r"a proxy \(http_proxy\)"):
        client(http_proxy="http://proxy:3128")
