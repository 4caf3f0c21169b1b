"""Secrets of AWS Secrets Manager, on moto's server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from k8sflow.errors import ConfigurationError
from k8sflow.flow.decorators import aws_secrets
from k8sflow.flow.decorators.secrets import SecretSource, read_secrets
from tests.support import run_flow, write_flow

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
ROLE = "arn:aws:iam::123456789012:role/reader"
OURS = "aws-secrets-manager"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """moto's server with a few secrets."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        client = boto3.client(
            "secretsmanager", "eu-west-1", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key="s"
        )
        client.create_secret(Name="prod/db", SecretString='{"DB_USER": "ada", "db-port": 5432}')
        client.create_secret(Name="twice", SecretString='{"a-b": "hidden", "a.b": "hidden"}')
        client.create_secret(Name="nested", SecretString='{"db": {"password": "hidden"}}')
        client.create_secret(Name="null", SecretString='{"x": null}')
        client.create_secret(Name="bad name", SecretString='{"a=b": "hidden"}')
        client.create_secret(Name="plain.token", SecretString="hidden")
        client.create_secret(Name="key", SecretBinary=b"\x00\xff")
        yield url
        server.kill()


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The variables by which AWS's tools find the server."""
    found = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.parametrize(
    ("secret", "options", "found"),
    [
        ("prod/db", {}, {"DB_USER": "ada", "db_port": "5432"}),
        ("prod/db", {"region": "eu-west-1"}, {"DB_USER": "ada", "db_port": "5432"}),
        ("plain.token", {"json": False}, {"plain_token": "hidden"}),
        ("plain.token", {"json": False, "env_var_name": "TOKEN"}, {"TOKEN": "hidden"}),
        ("key", {}, {"key": "AP8="}),
    ],
)
def test_a_secret_becomes_variables(
    aws: dict[str, str], secret: str, options: Mapping[str, Any], found: dict[str, str]
) -> None:
    assert read_secrets(SecretSource(OURS, secret, options), None, {}) == found
    assert read_secrets(SecretSource(OURS, secret, options), ROLE, {}) == found


@pytest.mark.parametrize(
    ("secret", "options", "message"),
    [
        ("nowhere", {}, "did not give 'nowhere': ResourceNotFoundException"),
        ("prod/db", {"region": "us-east-1"}, "ResourceNotFoundException"),
        ("plain.token", {}, "is not an object of JSON"),
        ("twice", {}, "are the variable a_b"),
        ("prod/db", {"nonsense": 1}, "has no option 'nonsense'"),
        ("nested", {}, "the value of 'db' has to be a text"),
        ("null", {}, "the value of 'x' has to be a text"),
        ("bad name", {}, "'a=b' can't be the name of a variable"),
        ("key", {"env_var_name": "a=b"}, "'a=b' can't be the name of a variable"),
    ],
)
def test_one_that_can_not_be_read_is_named_without_its_value(
    aws: dict[str, str], secret: str, options: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_secrets(SecretSource(OURS, secret, options), None, {})
    assert "hidden" not in str(caught.value)


def test_a_region_that_is_not_known_is_an_error(aws: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="NoRegionError"):
        aws_secrets.get("prod/db", {}, None)


def test_a_step_reads_one_of_the_default_store(aws: dict[str, str], tmp_path: Path) -> None:
    source = """
    class F(FlowSpec):
        @secrets(sources=["prod/db", {"type": "aws-secrets-manager", "id": "plain.token", "options": {"json": False}}])
        @step
        def start(self):
            import os
            assert (os.environ["DB_USER"], os.environ["plain_token"]) == ("ada", "hidden")
            self.next(self.end)
        @step
        def end(self):
            pass
    """
    file = write_flow(tmp_path, source, head="from k8sflow import FlowSpec, secrets, step\n")
    done = run_flow(file, K8SFLOW_DEFAULT_SECRETS_BACKEND_TYPE=OURS, **aws)
    assert done.returncode == 0, done.stderr
