"""A prefix of its own in the bucket of a real server, as a user's settings name it."""

from __future__ import annotations

import secrets

import pytest

from k8sflow.s3 import bucket
from tests import s3server
from tests.cluster.s3 import S3Server


@pytest.fixture
def settings(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the server and the keys."""
    for name, value in {**s3server.KEYS, **s3server.NO_FILES, "K8SFLOW_ENDPOINT": s3_server.endpoint}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["plain", "boto3"])
def root(settings: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of the prefix; a test is about both clients."""
    if request.param == "boto3":
        monkeypatch.setattr(bucket, "plain_client", lambda *_: None)
    return f"s3://{s3server.BUCKET}/{secrets.token_hex(4)}"
