"""Runs in a bucket whose artifacts are compressed: every command and reader handles them, as does what others wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from k8sflow.storage.records import Commit
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import environment, flow_command, run_flow, write_flow

pytestmark = pytest.mark.s3

FLOW = """
    class F(FlowSpec):
        text = Parameter("text", default="x" * 200_000)

        @step
        def start(self):
            self.counts = np.arange(1 << 20)
            self.names = np.array(["one", "two"] * (1 << 17), dtype=object)
            self.items = [0, 1]
            self.next(self.work, foreach="items")

        @step
        def work(self):
            self.is_again = current.checkpoint.is_loaded
            Path(current.checkpoint.directory, "state").write_text("half")
            current.checkpoint.save()
            if os.environ.get("FAILS") and self.input == 1:
                raise ValueError("as asked")
            self.total = int(self.counts.sum()) + self.input
            self.next(self.join)

        @step
        def join(self, inputs):
            self.merge_artifacts(inputs, include=["counts", "names"])
            self.changed = self.counts + 1
            self.next(self.end)

        @step
        def end(self):
            assert (self.changed == self.counts + 1).all() and len(self.text) == 200_000
            print("names", self.names[:2].tolist())
"""
HEAD = (
    "import os\nfrom pathlib import Path\nimport numpy as np\nfrom k8sflow import FlowSpec, Parameter, current, step\n"
)
WITHOUT_ZSTD = "from k8sflow.storage import zstd\nzstd._MODULES = zstd._LIBRARIES = ()\n"
READER = """
from k8sflow import Flow
run = Flow("F")["r1"]
print(run.successful, run["join"].task.data.changed.sum(), sorted(set(run["start"].task.data.names)))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Create the flow."""
    return write_flow(tmp_path / "flows", FLOW, head=HEAD)


@pytest.fixture
def root(s3_server: S3Server, s3_store: S3Store) -> dict[str, str]:
    """Return the environment with the bucket as root."""
    server = {**s3server.KEYS, **s3server.NO_FILES, "K8SFLOW_ENDPOINT": s3_server.endpoint}
    return {**server, "K8SFLOW_USER": "tester", "K8SFLOW_ROOT": s3_store.url}


def _commit(store: S3Store, run: str, step: str) -> Commit:
    found = RunStore(store, "F", run).read_commit(step, "0")
    assert found is not None
    return found


def test_commands_and_readers_handle_compressed_artifacts(
    file: Path, root: dict[str, str], s3_store: S3Store, tmp_path: Path
) -> None:
    """The run fails with compression, and is resumed without: a step that only reads an artifact doesn't write it."""
    done = run_flow(file, "--run-id", "r0", FAILS="yes", K8SFLOW_COMPRESSION="zstd", **root)
    assert done.returncode == 1, done.stdout + done.stderr
    done = flow_command(file, "resume", "--run-id", "r1", **root)
    assert done.returncode == 0, done.stdout + done.stderr

    assert "True" in flow_command(file, "dump", "r1/work/1/is_again", **root).stdout
    assert _commit(s3_store, "r1", "start").artifacts["counts"].encoding == "pickle5+zstd"
    assert _commit(s3_store, "r1", "join").artifacts["changed"].encoding == "pickle5"
    assert RunStore(s3_store, "F", "r1").read().parameters["text"].encoding == "pickle"
    done = flow_command(file, "spin", "r1/end", K8SFLOW_COMPRESSION="zstd", **root)
    assert "names ['one', 'two']" in done.stdout, done.stdout + done.stderr
    read = subprocess.run(
        [sys.executable, "-c", READER],
        cwd=tmp_path, env=environment(**root), capture_output=True, text=True, check=False,
    )  # fmt: skip
    total = sum(range((1 << 20) + 1))
    assert read.stdout == f"True {total} ['one', 'two']\n", read.stderr


def test_a_run_of_an_older_version_is_continued_with_compression(
    file: Path, root: dict[str, str], s3_store: S3Store
) -> None:
    """Its references have five keys and its artifacts are plain: they stay as they are."""
    done = run_flow(file, "--run-id", "r0", FAILS="yes", **root)
    assert done.returncode == 1, done.stdout + done.stderr
    document = json.loads(bytes(s3_store.get("F/runs/r0/run.json")))
    assert document["parameters"]["text"].keys() <= {"blob", "size", "encoding", "type", "inline"}
    done = flow_command(file, "resume", "--run-id", "r1", K8SFLOW_COMPRESSION="zstd", **root)
    assert done.returncode == 0, done.stdout + done.stderr

    old, new = _commit(s3_store, "r0", "start"), _commit(s3_store, "r1", "join")
    assert new.artifacts["counts"] == old.artifacts["counts"]
    assert (new.artifacts["counts"].encoding, new.artifacts["changed"].encoding) == ("pickle5", "pickle5+zstd")


def test_without_zstd_a_step_fails_before_it_begins(tmp_path: Path, root: dict[str, str]) -> None:
    """As in a pod whose image lacks it; without the setting, nothing is needed."""
    file = write_flow(tmp_path / "flows", FLOW, head=HEAD + WITHOUT_ZSTD)

    done = run_flow(file, K8SFLOW_COMPRESSION="zstd", **root)
    assert done.returncode == 1
    assert "the setting compression is zstd, which this Python" in done.stdout + done.stderr
    assert "pip install backports.zstd" in done.stdout + done.stderr
    done = run_flow(file, **root)
    assert done.returncode == 0, done.stdout + done.stderr
