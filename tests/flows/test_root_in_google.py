"""Runs on this machine whose root is a bucket of Google Cloud Storage, played by an emulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k8sflow.roots import EMULATOR_OF_GOOGLE
from k8sflow.storage.objects import ObjectStore
from tests.flows.test_root_in_bucket import FLOW, HEAD, try_commands
from tests.support import environment, run_flow, write_flow

pytestmark = pytest.mark.s3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Create the flow."""
    return write_flow(tmp_path / "flows", FLOW, head=HEAD)


def test_all_commands_work(file: Path, gcs_server: str, gcs_store: ObjectStore, tmp_path: Path) -> None:
    """Forks of the fork server and workers of parallel_map share no connection; nothing is written to a folder."""
    root = {"K8SFLOW_ROOT": gcs_store.url, EMULATOR_OF_GOOGLE: gcs_server, "K8SFLOW_USER": "tester"}
    try_commands(file, gcs_store, root, {("du",): gcs_store.url, ("gc", "--keep", "1"): "deleted"})
    code = "from k8sflow import Flow; r = Flow('F')['r1']; print(r['start'].task.data.point.x, r.successful)"
    read = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment(**root), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert read.stdout == "7 True\n", read.stderr
    assert not list(tmp_path.rglob(".k8sflow"))


def test_jobs_of_aws_batch_need_a_bucket_of_s3(file: Path) -> None:
    done = run_flow(file, "--with", "batch", "--datastore", "gs://bucket/prefix")
    assert done.returncode == 1
    assert "a run on AWS Batch needs a bucket of S3, and the one that is set is gs://bucket/prefix." in done.stderr
