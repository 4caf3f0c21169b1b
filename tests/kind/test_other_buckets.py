"""Runs whose bucket is one of Google or Azure, played by emulators on this machine that pods reach."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow.roots import EMULATOR_OF_GOOGLE
from k8sflow.storage.open_store import open_store
from tests import azureserver, gcsserver
from tests.kind.conftest import Namespace
from tests.kind.own_s3 import address_of_node
from tests.kind.proxy import address_towards
from tests.support import write_flow

KUBERNETES = ("--with", "kubernetes")
HEAD = "from k8sflow import FlowSpec, parallel_map, resources, step\n"
FLOW = """
    import os

    class F(FlowSpec):
        @resources(cpu=0.05, memory=150)
        @step
        def start(self):
            self.items = [1, 2, 3]
            self.next(self.work, foreach="items")

        @resources(cpu=0.05, memory=150)
        @step
        def work(self):
            self.big = bytes(70 << 20) if self.input == 1 else b""  # in parts
            self.square = sum(parallel_map(lambda x: x * x, [self.input]))
            self.next(self.join)

        @resources(cpu=0.05, memory=400)
        @step
        def join(self, inputs):
            self.total = sum(each.square for each in inputs)
            print("total", self.total, [len(each.big) for each in inputs])
            self.next(self.end)

        @resources(cpu=0.05, memory=150)
        @step
        def end(self):
            file = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
            print("key", open(file).read() if file else "none")
"""


@pytest.fixture(scope="module")
def emulator(namespace: Namespace) -> Iterator[str]:
    """Start the emulator where pods and this machine reach it."""
    with gcsserver.gcs_server(address_towards(address_of_node(namespace))) as address:
        yield address


@pytest.mark.parametrize("credentials", ["service-account", "secret:google"])
def test_pods_keep_everything_in_a_bucket_of_google(
    namespace: Namespace, emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    """With the cloud's workload identity, or with a service account's key, which pods have as a file."""
    key = json.dumps({"type": "service_account"})
    if credentials != "service-account":
        namespace.kubectl("create", "secret", "generic", "google", f"--from-literal=key.json={key}")
    bucket = f"gs://{gcsserver.BUCKET}/{credentials.replace(':', '-')}"
    own = {
        EMULATOR_OF_GOOGLE: emulator,
        "K8SFLOW_ROOT": bucket,
        "K8SFLOW_BUCKET": "",
        "K8SFLOW_CREDENTIALS": credentials,
    }
    file = write_flow(tmp_path, FLOW, head=HEAD)
    run = f"g{secrets.token_hex(6)}"
    done = namespace.command(str(file), "run", "--run-id", run, *KUBERNETES, **own).wait(240)
    assert done.code == 0, done.text
    assert f"total 14 [{70 << 20}, 0, 0]" in done.text
    assert f"key {key if credentials != 'service-account' else 'none'}" in done.text

    resumed = namespace.command(str(file), "resume", "--origin-run-id", run, "join", **own).wait(120)
    assert resumed.code == 0, resumed.text
    assert f"total 14 [{70 << 20}, 0, 0]" in resumed.text
    monkeypatch.setenv(EMULATOR_OF_GOOGLE, emulator)
    store = open_store(bucket)
    assert not [key for key in store.list_keys("F/") if ".part-" in key]
    store.close()


def test_pods_keep_everything_in_a_container_of_azure(namespace: Namespace, tmp_path: Path) -> None:
    """They have the connection string of a Secret."""
    file = write_flow(tmp_path, FLOW, head=HEAD)
    with azureserver.azure_server(address_towards(address_of_node(namespace))) as variables:
        values = [f"--from-literal={name}={value}" for name, value in variables.items()]
        namespace.kubectl("create", "secret", "generic", "azure", *values)
        own = {"K8SFLOW_BUCKET": f"az://{azureserver.CONTAINER}", "K8SFLOW_CREDENTIALS": "secret:azure", **variables}
        done = namespace.command(str(file), "run", *KUBERNETES, **own).wait(240)
    assert done.code == 0, done.text
    assert f"total 14 [{70 << 20}, 0, 0]" in done.text


def test_an_emulator_that_pods_cant_reach_is_named(namespace: Namespace, tmp_path: Path) -> None:
    file = write_flow(tmp_path, FLOW, head=HEAD)
    with gcsserver.gcs_server() as address:
        own = {EMULATOR_OF_GOOGLE: address, "K8SFLOW_BUCKET": f"gs://{gcsserver.BUCKET}"}
        done = namespace.command(str(file), "run", *KUBERNETES, **own, K8SFLOW_CREDENTIALS="service-account").wait(60)
    assert done.code == 1, done.text
    assert f"pods can't reach the bucket at {address} (variable STORAGE_EMULATOR_HOST)" in done.text
