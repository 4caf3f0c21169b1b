"""``code``: the code of runs in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import flow_command, write_flow

SOURCE = """
    class F(FlowSpec):
        @step
        def start(self):
            self.n = {n}
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.s3
def test_the_code_of_runs_is_compared_and_copied(tmp_path: Path, s3_server: S3Server) -> None:
    environment = {
        **s3server.KEYS,
        **s3server.NO_FILES,
        "K8SFLOW_ENDPOINT": s3_server.endpoint,
        "K8SFLOW_ROOT": f"s3://{s3server.BUCKET}/code",
    }

    def call(*words: str) -> str:
        done = flow_command(file, *words, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    file = write_flow(tmp_path, SOURCE.format(n=1))
    (tmp_path / "table.bin").write_bytes(b"\xff")
    call("run", "--run-id", "r1")
    assert not call("code", "diff", "r1")
    write_flow(tmp_path, SOURCE.format(n=2))
    (tmp_path / "table.bin").unlink()
    difference = call("code", "diff", "r1").splitlines()
    assert "-        self.n = 1" in difference
    assert "+        self.n = 2" in difference
    assert "+++ /dev/null" in difference
    call("run", "--run-id", "r2")
    assert "--- F/r2/flow.py" in call("code", "diff-runs", "r2", "r1")
    assert "old: the code of F/r1" in call("code", "pull", "r1", "--dir", "old")
    assert (tmp_path / "old/flow.py").read_text() == write_flow(tmp_path / "new", SOURCE.format(n=1)).read_text()
    assert "is not empty" in flow_command(file, "code", "pull", "r1", "--dir", "old", **environment).stderr
