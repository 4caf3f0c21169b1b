"""The blocks, the signatures and the tokens of the store in Azure; what all stores have is in test_objects.py."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from k8sflow.azure_account import ENDPOINT, SAS, AzureAccount, account_of
from k8sflow.errors import AccessError, BucketNotFoundError, ConfigurationError, OutageError
from k8sflow.s3_options import S3Options
from k8sflow.storage import s3
from k8sflow.storage.azure import AzureClient
from k8sflow.storage.open_store import open_store
from k8sflow.storage.s3 import S3Store
from tests.azureserver import CONTAINER


@pytest.mark.s3
def test_a_large_object_is_written_in_blocks(azure_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1)
    monkeypatch.setattr(s3, "PART_BYTES", 1 << 16)
    data = bytes(range(256)) * 1000
    azure_store.put("F/a", [data[:1000], memoryview(data)[1000:]])
    assert bytes(azure_store.get("F/a")) == data
    assert list(azure_store.list_keys("F/")) == ["F/a"]


@pytest.mark.s3
def test_two_uploads_of_one_object_at_once_both_succeed(azure_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the first one discards the blocks of the other, which begins again."""
    monkeypatch.setattr(s3, "_MULTIPART_FROM_BYTES", 1)
    monkeypatch.setattr(s3, "PART_BYTES", 4)
    client = azure_store._client
    end, others = client.end_upload, [b"other"]

    def interrupted(key: str, upload: str, etags: list[str]) -> None:
        if others:
            client.write(key, others.pop())
        end(key, upload, etags)

    monkeypatch.setattr(client, "end_upload", interrupted)
    azure_store.put("F/a", [b"0123456789"])
    assert bytes(azure_store.get("F/a")) == b"0123456789"


@pytest.mark.s3
def test_an_object_that_is_replaced_meanwhile_is_not_mixed_with_the_new_one(azure_store: S3Store) -> None:
    client = azure_store._client
    azure_store.put("F/a", [b"old"])
    found = client.read(f"{azure_store.prefix}F/a")
    version = found.etag
    found.close()
    azure_store.put("F/a", [b"new"])
    with pytest.raises(s3.RefusedError, match="PreconditionFailed"):
        client.read(f"{azure_store.prefix}F/a", "bytes=1-", version)


@pytest.mark.s3
def test_a_missing_container_has_its_own_error(azure_store: S3Store) -> None:
    store = open_store("az://missing/prefix")
    with pytest.raises(BucketNotFoundError, match="no bucket 'missing'"):
        list(store.list_keys("a/"))
    store.close()


def _shared_access(account: AzureAccount, **changes: str) -> str:
    """A signature for the account (https://learn.microsoft.com/rest/api/storageservices/create-account-sas)."""
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    fields = {"sv": "2019-02-02", "ss": "b", "srt": "sco", "sp": "racwdl", "st": "", "se": end, **changes}
    order = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv")
    text = "\n".join([account.name, *(fields.get(name, "") for name in order), ""])
    digest = hmac.digest(base64.b64decode(account.key), text.encode(), hashlib.sha256)
    return urlencode({**{name: value for name, value in fields.items() if value}, "sig": base64.b64encode(digest)})


@pytest.mark.s3
def test_a_shared_access_signature_takes_the_place_of_the_key(
    azure_server: dict[str, str], azure_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = account_of(azure_server)
    for name in azure_server:
        monkeypatch.delenv(name)
    monkeypatch.setenv(ENDPOINT, account.endpoint)
    monkeypatch.setenv(SAS, _shared_access(account))
    store = open_store(azure_store.url)
    assert store.put_new("F/a", b"x")
    assert not store.put_new("F/a", b"y")
    assert list(store.list_keys("F/")) == ["F/a"]
    store.delete(["F/a"])
    store.close()
    monkeypatch.setenv(SAS, _shared_access(account, sp="l"))
    store = open_store(azure_store.url)
    with pytest.raises(
        AccessError, match=f"Azure refuses access to the container {CONTAINER} of the account"
    ) as caught:
        store.put("F/a", [b"x"])
    assert "sig=" not in str(caught.value)
    store.close()


@dataclass
class Azure:
    """The servers of Azure that a client talks to, as far as tokens and clocks matter."""

    address: str = ""
    ahead: float = 0.0
    expires_in: float = 3600
    refusal_status: int = 0
    revoked: set[str] = field(default_factory=set)
    issued: list[dict[str, list[str]]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    def token(self, sent: str) -> tuple[int, dict[str, Any]]:
        if self.refusal_status:
            return self.refusal_status, {"error": "invalid_client"}
        self.issued.append(parse_qs(sent))
        return 200, {"access_token": f"t{len(self.issued)}", "expires_in": self.expires_in}


@pytest.fixture
def azure() -> Iterator[Azure]:
    """Servers at one address."""
    found = Azure()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/metadata"):
                assert self.headers["Metadata"] == "true"
                self._answer_with(*found.token(self.path.partition("?")[2]))
                return
            found.used.append(self.headers["Authorization"])
            sent = self.headers["x-ms-date"]
            if abs(time.mktime(time.strptime(sent, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone - self._now()) > 900:
                self._answer(403, b"")
            elif self.headers["Authorization"] in found.revoked:
                self._answer(401, b"")
            else:
                self._answer(200, b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>")

        def do_POST(self) -> None:
            self._answer_with(*found.token(self.rfile.read(int(self.headers["Content-Length"])).decode()))

        def _now(self) -> float:
            return time.time() + found.ahead

        def _answer_with(self, status: int, document: dict[str, Any]) -> None:
            self._answer(status, json.dumps(document).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(self._now(), usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        found.address = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def client(azure: Azure) -> Iterator[Callable[..., AzureClient]]:
    """Return a client with the given environment."""
    made = []

    def make(key: str = "", **variables: str) -> AzureClient:
        account = AzureAccount("acc", f"{azure.address}/acc", key)
        made.append(AzureClient("c", account, 4, {"AZURE_POD_IDENTITY_AUTHORITY_HOST": azure.address, **variables}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_machine_has_a_managed_identity(azure: Azure, client: Callable[..., AzureClient]) -> None:
    """One token serves many requests."""
    found = client(AZURE_CLIENT_ID="me")
    found.page("a/")
    found.page("a/")
    assert azure.used == ["Bearer t1", "Bearer t1"]
    assert azure.issued == [
        {"api-version": ["2018-02-01"], "resource": ["https://storage.azure.com/"], "client_id": ["me"]}
    ]


def test_a_pod_exchanges_the_token_of_its_service_account(
    azure: Azure, client: Callable[..., AzureClient], tmp_path: Path
) -> None:
    """The file is read again for each token, since Kubernetes replaces it."""
    file = tmp_path / "token"
    file.write_text("first")
    azure.expires_in = 60
    own = {"AZURE_FEDERATED_TOKEN_FILE": str(file), "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "me"}
    found = client(AZURE_AUTHORITY_HOST=f"{azure.address}/", **own)
    found.page("a/")
    file.write_text("second")
    found.page("a/")
    assert azure.used == ["Bearer t1", "Bearer t2"]
    assert [sent["client_assertion"] for sent in azure.issued] == [["first"], ["second"]]
    assert azure.issued[0]["scope"] == ["https://storage.azure.com/.default"]
    file.unlink()
    with pytest.raises(AccessError, match=r"AZURE_FEDERATED_TOKEN_FILE is .* can't be read"):
        found.page("a/")


@pytest.fixture
def az(tmp_path: Path) -> dict[str, str]:
    """Install a command line of Azure whose user has logged in; the variables by which it is found."""
    (tmp_path / ".azure").mkdir()
    (tmp_path / ".azure/azureProfile.json").write_text("{}")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/az"
    program.write_text(
        '#!/bin/sh\nif [ -e "$HOME/ended" ]; then echo "Please run: az login" >&2; exit 1; fi\n'
        f'echo \'{{"accessToken": "mine", "expires_on": {time.time() + 60:.0f}}}\'; echo "$@" >>"$HOME/asked"\n'
    )
    program.chmod(0o755)
    return {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


def test_a_person_logs_in_once(
    azure: Azure, client: Callable[..., AzureClient], az: dict[str, str], tmp_path: Path
) -> None:
    found = client(**az)
    found.page("a/")
    assert azure.used == ["Bearer mine"]
    asked = (tmp_path / "asked").read_text()
    assert asked == "account get-access-token --resource https://storage.azure.com/ --output json\n"
    (tmp_path / "ended").touch()
    with pytest.raises(AccessError, match="gives no token: Please run: az login"):
        client(**az).page("a/")


def test_a_revoked_token_is_replaced(azure: Azure, client: Callable[..., AzureClient]) -> None:
    found = client()
    found.page("a/")
    azure.revoked = {"Bearer t1"}
    found.page("a/")
    assert azure.used == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_an_outage_of_the_tokens_server_is_not_a_refusal(azure: Azure, client: Callable[..., AzureClient]) -> None:
    """A token that has not ended yet is used on; without one, calls wait as for the container."""
    azure.expires_in = 60
    found = client()
    found.page("a/")
    azure.refusal_status = 503
    found.page("a/")
    assert azure.used == ["Bearer t1", "Bearer t1"]
    assert found._tokens is not None
    found._tokens.forget()
    with pytest.raises(OutageError, match="token"):
        found.page("a/")


def test_without_any_credentials_the_error_says_where_they_may_be(
    azure: Azure, client: Callable[..., AzureClient]
) -> None:
    azure.refusal_status = 400
    with pytest.raises(AccessError, match=r"no credentials for Azure's storage.*there is no managed identity"):
        client().page("a/")


@pytest.mark.parametrize("hours", [-1, 1])
def test_requests_are_signed_with_the_servers_time_where_the_clocks_differ(
    azure: Azure, client: Callable[..., AzureClient], hours: int
) -> None:
    azure.ahead = hours * 3600
    found = client("AAAA")
    found.page("a/")
    found.page("a/")
    assert len(azure.used) == 3


@pytest.mark.parametrize("endpoint", ["http://[::1", "ftp://host", "https://host?x=y"])
def test_an_address_that_is_none_is_named(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="the address of the storage account of Azure is "):
        AzureClient("c", AzureAccount("acc", endpoint, "AAAA"), 1, {})


def test_a_proxy_is_not_ignored() -> None:
    account = AzureAccount("acc", "https://acc.blob.core.windows.net", "AAAA")
    with pytest.raises(ConfigurationError, match=r"a proxy \(https_proxy\)"):
        AzureClient("c", account, 1, {"https_proxy": "http://proxy:3128"})


def test_a_server_that_no_proxy_is_used_for_is_reached_directly() -> None:
    account = AzureAccount("acc", "https://acc.blob.core.windows.net", "AAAA")
    environment = {"https_proxy": "http://proxy:3128", "no_proxy": "localhost,.core.windows.net"}
    AzureClient("c", account, 1, environment).close()


def test_an_address_is_shown_without_its_signature() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AzureClient("c", AzureAccount("acc", "https://acc.blob.core.windows.net/?sv=1&sig=sekret"), 1, {})
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("answer", ["no JSON", '{"accessToken": "mine", "expiresOn": "2026-01-01 10:00:00.000000"}'])
def test_an_old_command_line_of_azure_is_an_error(
    client: Callable[..., AzureClient], az: dict[str, str], tmp_path: Path, answer: str
) -> None:
    program = tmp_path / "bin" / "az"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    with pytest.raises(AccessError, match="gives no token that can be read"):
        client(**az).page("a/")


def test_settings_that_only_s3_has_are_refused(azure_store: S3Store) -> None:
    with pytest.raises(ConfigurationError, match="s3_anonymous only applies to buckets of S3"):
        S3Store(azure_store.url, options=S3Options(anonymous=True)).check()


def test_a_connection_string_without_an_endpoint_leaves_it_to_the_variable() -> None:
    """The key and the signature are those of the connection string in any case."""
    found = account_of(
        {
            "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=AAAA",
            "AZURE_STORAGE_SERVICE_ENDPOINT": "https://other.example",
            "AZURE_STORAGE_KEY": "BBBB",
            "AZURE_STORAGE_SAS_TOKEN": "sig=x",
        }
    )
    assert (found.name, found.endpoint, found.key, found.sas) == ("a", "https://other.example", "AAAA", "")
