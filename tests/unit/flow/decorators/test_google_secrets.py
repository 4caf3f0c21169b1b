"""Secrets of Google's Secret Manager, on a server that speaks its protocol and that of the metadata server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from k8sflow.errors import ConfigurationError
from k8sflow.flow.decorators.secrets import SecretSource, read_secrets
from tests.support import run_flow, write_flow

OURS = "gcp-secret-manager"
SECRETS = {
    "projects/12/secrets/db": b'{"DB_USER": "ada", "db-port": 5432}',
    "projects/lab/secrets/my-token": b"hidden",
    "projects/12/secrets/key": b"\x00\xff",
    "projects/12/secrets/twice": b'{"a-b": "hidden", "a.b": "hidden"}',
    "projects/12/secrets/nested": b'{"db": {"password": "hidden"}}',
}


class Handler(BaseHTTPRequestHandler):
    """The metadata server, the server of tokens, and versions/latest and versions/3 of the secrets."""

    def do_GET(self) -> None:
        if self.path.startswith("/computeMetadata/"):
            return self._answer(200, {"access_token": "of-pod", "expires_in": 3600})
        name, _, version = self.path.removeprefix("/v1/").removesuffix(":access").partition("/versions/")
        is_person = self.headers["Authorization"] == "Bearer of-person" and self.headers["X-Goog-User-Project"] == "q"
        if self.headers["Authorization"] != "Bearer of-pod" and not is_person:
            return self._answer(401, {"error": {"code": 401, "status": "UNAUTHENTICATED"}})
        if name == "projects/12/secrets/odd":
            return self._answer(200, {"hidden": "hidden"})
        if not self.path.endswith(":access") or name not in SECRETS or version not in {"latest", "3"}:
            return self._answer(404, {"error": {"code": 404, "message": "hidden", "status": "NOT_FOUND"}})
        data = base64.b64encode(SECRETS[name]).decode()
        return self._answer(200, {"name": f"{name}/versions/3", "payload": {"data": data, "dataCrc32c": "1"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, {"access_token": "of-person", "expires_in": 3600})

    def _answer(self, status: int, document: Mapping[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def google(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a pod whose metadata server and Secret Manager are on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        yield {
            "GCE_METADATA_HOST": host,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"http://{host}/",
            "CLOUDSDK_CONFIG": str(tmp_path / "none"),
        }
        server.shutdown()


@pytest.mark.parametrize(
    ("secret", "options", "found"),
    [
        ("projects/lab/secrets/my-token", {}, {"my_token": "hidden"}),
        ("projects/lab/secrets/my-token/versions/3", {"env_var_name": "TOKEN"}, {"TOKEN": "hidden"}),
        ("my-token", {}, {"my_token": "hidden"}),
        ("my-token/versions/latest", {}, {"my_token": "hidden"}),
        ("projects/12/secrets/db", {"json": True}, {"DB_USER": "ada", "db_port": "5432"}),
        ("projects/12/secrets/key", {"binary": True}, {"key": "AP8="}),
    ],
)
def test_a_secret_becomes_variables(
    google: dict[str, str], secret: str, options: Mapping[str, Any], found: dict[str, str]
) -> None:
    google["GOOGLE_CLOUD_PROJECT"] = "lab"
    assert read_secrets(SecretSource(OURS, secret, options), None, google) == found


@pytest.mark.parametrize(
    ("secret", "options", "role", "words"),
    [
        ("projects/12/secrets/absent", {}, None, "did not give 'projects/12/secrets/absent': 404"),
        ("projects/12/secrets/db/versions/9", {}, None, "404"),
        ("db", {}, None, "the id of a secret of Google's Secret Manager is incomplete"),
        ("projects/12/db", {}, None, "is incomplete"),
        ("projects/12/secrets/db", {"region": "x"}, None, "has no option 'region'"),
        ("projects/12/secrets/db", {}, "reader", "under no role"),
        ("projects/12/secrets/key", {}, None, "is not a text in UTF-8"),
        ("projects/12/secrets/key", {"json": True}, None, "is not a text in UTF-8"),
        ("projects/lab/secrets/my-token", {"json": True}, None, "is not an object of JSON"),
        ("projects/12/secrets/twice", {"json": True}, None, "two keys"),
        ("projects/12/secrets/nested", {"json": True}, None, "are not all variables"),
        ("projects/12/secrets/odd", {}, None, "gives no answer of Google's Secret Manager"),
    ],
)
def test_what_can_not_be_read_is_an_error_without_a_value(
    google: dict[str, str], secret: str, options: Mapping[str, Any], role: str | None, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_secrets(SecretSource(OURS, secret, options), role, google)
    assert words in caught.value.summary
    assert caught.value.advice
    assert "hidden" not in str(caught.value)


def test_the_login_of_a_person_is_used_with_its_project_for_quotas(google: dict[str, str], tmp_path: Path) -> None:
    login = dict.fromkeys(("client_id", "client_secret", "refresh_token"), "x")
    login |= {
        "type": "authorized_user",
        "quota_project_id": "q",
        "token_uri": f"http://{google['GCE_METADATA_HOST']}/t",
    }
    (tmp_path / "login.json").write_text(json.dumps(login))
    google["GOOGLE_APPLICATION_CREDENTIALS"] = str(tmp_path / "login.json")
    found = read_secrets(SecretSource(OURS, "projects/lab/secrets/my-token"), None, google)
    assert found == {"my_token": "hidden"}


def test_without_credentials_or_a_server_the_error_says_so(google: dict[str, str]) -> None:
    source = SecretSource(OURS, "projects/lab/secrets/my-token")
    with pytest.raises(ConfigurationError, match="could not be asked"):
        read_secrets(source, None, {**google, "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": "http://127.0.0.1:1"})
    with pytest.raises(ConfigurationError, match="there are no credentials for Google Cloud"):
        read_secrets(source, None, {**google, "GCE_METADATA_HOST": "127.0.0.1:1"})


def test_a_step_reads_it(google: dict[str, str], tmp_path: Path) -> None:
    """By its id alone, where the store is the default one."""
    flow = write_flow(
        tmp_path,
        """
        import os
        from k8sflow import secrets
        class F(FlowSpec):
            @secrets(sources=["projects/lab/secrets/my-token"])
            @step(start=True, end=True)
            def only(self): self.length = len(os.environ["my_token"])
        """,
    )
    done = run_flow(flow, **google, K8SFLOW_DEFAULT_SECRETS_BACKEND_TYPE=OURS)
    assert done.returncode == 0, done.stderr
    assert "hidden" not in done.stdout
