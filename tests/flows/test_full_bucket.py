"""A server of S3 whose disk is full."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import s3server
from tests.flows.test_state_folder import tmpfs
from tests.support import flow_command, run_flow, write_flow

pytestmark = pytest.mark.s3
FLOW = """
    import os

    class F(FlowSpec):
        @step
        def start(self):
            self.small = 1
            self.next(self.big)
        @step
        def big(self):
            self.value = os.urandom(8_000_000)
            self.next(self.end)
        @step
        def end(self):
            print("size", len(self.value), self.small)
"""


def test_a_run_fails_with_the_reason_and_is_resumed_when_there_is_space(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=5m") as disk, s3server.s3_server(disk) as server:
        file = write_flow(tmp_path / "flows", FLOW)
        own = {"K8SFLOW_ROOT": f"s3://{s3server.BUCKET}/p", "K8SFLOW_ENDPOINT": server.endpoint}
        own |= {**s3server.KEYS, **s3server.NO_FILES, "K8SFLOW_INFRASTRUCTURE_RETRIES": "0"}
        failed = run_flow(file, "--run-id", "r1", K8SFLOW_STORAGE_PATIENCE_SECONDS="1", **own)
        assert failed.returncode == 1, failed.stdout
        assert "failed (storage error)" in failed.stdout
        assert "No space left on device" in failed.stdout
        assert "Traceback" not in failed.stdout + failed.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        done = flow_command(file, "resume", "--origin-run-id", "r1", **own)
        assert done.returncode == 0, done.stderr
        assert "size 8000000 1" in done.stdout
