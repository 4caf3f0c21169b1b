"""``S3(run=self)`` in a step: the data of the run, in the bucket."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from k8sflow import S3, Run, namespace
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import latest, run_flow, write_flow

FLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            from k8sflow import S3, parallel_map
            with S3(run=self) as s3:
                self.url = s3.put("first", "1")
                parallel_map(lambda number: s3.put(f"part/{number}", str(number)), range(4), max_parallel=2)
            self.next(self.end)

        @step
        def end(self):
            from k8sflow import S3
            with S3(run=self) as s3:
                self.texts = [found.text for found in s3.get_all()]
                self.path = s3.get("first").path
            with S3() as s3:
                assert s3.get(self.url).text == "1"
"""


@pytest.mark.s3
def test_steps_share_the_data_of_their_run(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys are relative to the run, which the client reads too; the files end with the task."""
    bucket = f"{s3server.BUCKET}/{secrets.token_hex(4)}"
    settings = {"K8SFLOW_BUCKET": bucket, "K8SFLOW_ENDPOINT": s3_server.endpoint}
    keys = {**s3server.KEYS, **s3server.NO_FILES}
    done = run_flow(write_flow(tmp_path, FLOW), cwd=tmp_path, **settings, **keys)
    assert done.returncode == 0, done.stdout + done.stderr
    run = latest(tmp_path)
    assert run["end"].task.data.texts == ["1", "0", "1", "2", "3"]
    assert run["end"].task.data.url == f"s3://{bucket}/F/data/{run.id}/first"
    assert not Path(run["end"].task.data.path).exists()
    for name, value in {**settings, **keys, "K8SFLOW_ROOT": str(tmp_path / ".k8sflow")}.items():
        monkeypatch.setenv(name, value)
    namespace(None)
    with S3(run=Run(f"F/{run.id}")) as s3:
        assert [found.key for found in s3.list_recursive(["part"])] == ["0", "1", "2", "3"]


def test_a_run_without_a_bucket_says_how_to_set_one(tmp_path: Path) -> None:
    done = run_flow(write_flow(tmp_path, FLOW), cwd=tmp_path)
    assert done.returncode != 0
    assert "S3(run=…) needs a bucket for the data of runs, and none is set." in done.stdout + done.stderr
    assert "Set K8SFLOW_BUCKET=name (or bucket in k8sflow.toml)" in done.stdout + done.stderr
