"""The agent of a task's pod, as a process of this machine with a store in a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from k8sflow.flow import graph as graphs
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord, RunStore
from k8sflow.task.framing import ResultLine, decode
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import DEADLINE_SECONDS, environment, load_flow, write_flow

SLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            import signal, subprocess, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", "1000"])
            time.sleep(1000)
            self.next(self.end)
        @step
        def end(self): pass
"""


def test_a_task_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    """Also one that ignores SIGTERM; the agent tells timed_out, and writes it."""
    file = write_flow(tmp_path / "code", SLOW)
    flow, store = load_flow(file), FolderStore(str(tmp_path / "store"))
    code = package.build(file.parent)
    ArtifactStore(store, "F").save_blob(code.sha256, [code.archive])
    run_store = RunStore(store, "F", "r")
    run_store.create(RunRecord("F", "r", file.name, {}, graphs.build(flow).to_document(), package=code.sha256))
    spec = TaskSpec("F", "r", TaskName("start"))
    (tmp_path / "pod").mkdir()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "k8sflow.task.agent", spec.to_json(), f"--store={store.url}", "--flow=F",
         f"--package={code.sha256}", f"--file={file.name}", "--timeout=1"],
        cwd=tmp_path / "pod", env=environment(), capture_output=True, timeout=DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    assert time.monotonic() - began > 1
    assert done.returncode == 1, done.stderr
    line = decode(done.stdout.splitlines()[-1])
    assert isinstance(line, ResultLine)
    result = TaskResult.from_json(line.text)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.diagnosis is not None
    assert "timeout of 1 s" in result.diagnosis.summary
    outcome = run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "timed_out"
