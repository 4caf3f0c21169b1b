"""The settings of how requests to S3 are sent, against a real server and with a record of the requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from k8sflow.config import Settings, load
from k8sflow.errors import AccessError, ConfigurationError, K8sflowError
from k8sflow.executors.bucket import open_bucket
from k8sflow.s3_options import S3Options, headers_of
from k8sflow.storage import s3
from k8sflow.storage.open_store import store_of
from k8sflow.storage.s3 import S3Store
from tests.cluster.s3 import S3Server
from tests.flows.test_root_in_bucket import FLOW, HEAD
from tests.recording import Request, recording
from tests.s3server import BUCKET, KEYS, NO_FILES
from tests.support import run_flow, write_flow

KMS = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:x:1:key/k",
}
LARGE = 70 << 20


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, **NO_FILES}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["plain", "boto3"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose each of the clients, as far as it can do what is asked for."""
    if request.param == "boto3":
        monkeypatch.setattr(s3, "plain_client", lambda *_: None)
    return str(request.param)


def _used(store: S3Store) -> None:
    store.put("a/x", [b"one"])
    assert store.put_new("a/new", b"one")
    assert not store.put_new("a/new", b"two")
    store.put("a/large", [bytes(LARGE)])
    assert len(store.get("a/large")) == LARGE
    assert bytes(store.get("a/x")) == b"one"
    assert store.exists("a/x", 3)
    assert list(store.list_keys("a/")) == ["a/large", "a/new", "a/x"]
    store.delete(["a/x", "a/new", "a/large"])
    store.close()


def _creates(request: Request) -> bool:
    is_part = "partNumber" in request.target
    return (request.method == "PUT" and not is_part) or (request.method == "POST" and "uploads" in request.target)


def _has(request: Request, headers: Mapping[str, str]) -> bool:
    return headers.items() <= request.headers.items()


@pytest.mark.s3
def test_headers_are_sent_signed_where_an_object_is_created(
    client: str, s3_server: S3Server, s3_store: S3Store
) -> None:
    """Encryption headers are sent only to create an object: S3 rejects them elsewhere. The payer header always is."""
    text = ", ".join(f"{name.upper()} = {value}" for name, value in KMS.items())
    settings = Settings(s3_write_headers=text.replace("X-AMZ", "x-amz"), s3_requester_pays="true")
    with recording(s3_server.endpoint) as (endpoint, requests):
        store = store_of(replace(settings, endpoint=endpoint), s3_store.url)
        assert isinstance(store, S3Store)
        _used(store)
    assert {request.method for request in requests if _creates(request)} == {"PUT", "POST"}
    for request in requests:
        assert _has(request, {"x-amz-request-payer": "requester"}), request
        assert _has(request, KMS) == _creates(request), request
        signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert "x-amz-request-payer" in signed
        assert ("x-amz-server-side-encryption" in signed) == _creates(request)


@pytest.mark.s3
def test_a_certificate_of_ones_own_is_verified(
    client: str, s3_server: S3Server, tmp_path: Path, s3_store: S3Store
) -> None:
    """Without the setting the server is refused."""
    with recording(s3_server.endpoint, tls=tmp_path) as (endpoint, requests):
        settings = Settings(endpoint=endpoint)
        with pytest.raises(K8sflowError, match=r"(?i)certificate"):
            store_of(settings, s3_store.url).get("x")
        assert requests == []
        store = store_of(replace(settings, s3_ca_bundle=str(tmp_path / "ca.pem")), s3_store.url)
        assert isinstance(store, S3Store)
        _used(store)
    assert requests


@pytest.mark.s3
def test_a_run_in_the_cluster_has_the_store_of_local_runs(s3_server: S3Server, s3_store: S3Store) -> None:
    """So a local run can be resumed there, which needs the same bucket and prefix."""
    found = load(Path("/nowhere"), {"K8SFLOW_ROOT": f"{s3_store.url}/", "K8SFLOW_ENDPOINT": s3_server.endpoint})
    assert open_bucket(found).url == store_of(found, str(found.root)).url == s3_store.url
    open_bucket(found).check()


@pytest.mark.s3
def test_requests_go_through_the_proxy(s3_server: S3Server, s3_store: S3Store) -> None:
    """It gets the whole URL."""
    with recording(s3_server.endpoint) as (proxy, requests):
        store = store_of(Settings(endpoint=s3_server.endpoint, s3_proxy=proxy), s3_store.url)
        assert isinstance(store, S3Store)
        _used(store)
    assert requests
    assert all(request.target.startswith(f"{s3_server.endpoint}/{BUCKET}") for request in requests)


@pytest.mark.s3
def test_anonymous_requests_have_no_keys(
    s3_server: S3Server, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of the environment are neither needed nor sent; a bucket that is not public refuses."""
    s3_store.put("x", [b"one"])
    for name in KEYS:
        monkeypatch.delenv(name)
    with recording(s3_server.endpoint) as (endpoint, requests):
        store = store_of(Settings(endpoint=endpoint, s3_anonymous="TRUE"), s3_store.url)
        with pytest.raises((AccessError, ConfigurationError)):
            store.get("x")
        store.close()
    assert requests
    assert not any("authorization" in request.headers for request in requests)


@pytest.mark.s3
def test_tasks_of_a_local_run_send_what_the_settings_say(
    tmp_path: Path, s3_server: S3Server, s3_store: S3Store
) -> None:
    """Driver, forks of the fork server and workers of parallel_map: all trust the certificate, and all pay."""
    file = write_flow(tmp_path / "flows", FLOW, head=HEAD)
    with recording(s3_server.endpoint, tls=tmp_path) as (endpoint, requests):
        lines = f"""
            root = "{s3_store.url}"
            endpoint = "{endpoint}"
            s3_ca_bundle = "../ca.pem"
            s3_requester_pays = "true"
        """
        (file.parent / "k8sflow.toml").write_text(lines)
        done = run_flow(file, cwd=tmp_path, **KEYS, **NO_FILES)
        assert done.returncode == 0, done.stdout + done.stderr
    assert requests
    assert all(_has(request, {"x-amz-request-payer": "requester"}) for request in requests)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"s3_anonymous": "yes"}, "s3_anonymous is 'yes'"),
        ({"s3_requester_pays": "1"}, "s3_requester_pays is '1'"),
        ({"s3_proxy": "proxy:3128"}, "s3_proxy is 'proxy:3128'"),
        ({"in_cluster_s3_proxy": "ftp://x"}, "in_cluster_s3_proxy is 'ftp://x'"),
        ({"s3_proxy": "http://x:port"}, "s3_proxy is"),
        ({"s3_write_headers": "x-amz-acl"}, "'x-amz-acl'"),
        ({"s3_write_headers": "host=x"}, "'host=x'"),
        ({"s3_write_headers": "x-amz-acl=a\nb: c"}, "s3_write_headers has"),
        ({"s3_write_headers": "x-amz-server-side-encryption-customer-key=k"}, "which k8sflow can't use"),
    ],
)
def test_invalid_values_are_refused_when_they_are_read(values: dict[str, str], words: str) -> None:
    """Not by the server, in the middle of a run."""
    with pytest.raises(ConfigurationError) as raised:
        Settings(**values)  # type: ignore[arg-type]
    assert words in raised.value.summary
    assert raised.value.advice


def test_a_missing_file_of_certificates_is_reported_where_it_is_used(tmp_path: Path) -> None:
    """The settings may be those of pods, which have other files."""
    settings = Settings(s3_ca_bundle=str(tmp_path / "none.pem"), in_cluster_s3_ca_bundle="/etc/ca.pem")
    assert settings.in_cluster().s3_ca_bundle == "/etc/ca.pem"
    with pytest.raises(ConfigurationError, match="there is no such file"):
        S3Options.of(settings)


def test_headers_may_be_left_out() -> None:
    """An empty setting, or a comma at the end, is not a mistake."""
    assert headers_of(None) == headers_of("") == headers_of(" , ") == {}
    assert headers_of("x-amz-storage-class=STANDARD_IA,") == {"x-amz-storage-class": "STANDARD_IA"}


@pytest.mark.s3
def test_a_public_bucket_is_read_without_keys(
    s3_server: S3Server, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only as its policy allows it."""
    s3_server.create_bucket("public")
    allowed = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    statement = {**allowed, "Resource": ["arn:aws:s3:::public", "arn:aws:s3:::public/*"]}
    boto3.client("s3", endpoint_url=s3_server.endpoint, region_name="us-east-1").put_bucket_policy(
        Bucket="public", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    owners = store_of(Settings(endpoint=s3_server.endpoint), "s3://public/p")
    owners.put("F/x", [b"one"])
    owners.close()
    for name in KEYS:
        monkeypatch.delenv(name)
    store = store_of(Settings(endpoint=s3_server.endpoint, s3_anonymous="true"), "s3://public/p")
    assert bytes(store.get("F/x")) == b"one"
    assert list(store.list_keys("F/")) == ["F/x"]
    with pytest.raises(AccessError):
        store.put("F/y", [b"two"])
    store.close()
