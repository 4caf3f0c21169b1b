"""The agent of a task whose bucket, a real S3 server, goes away: what it keeps, what it says, and what it gives up."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from k8sflow.flow.compile import compile_flow
from k8sflow.flow.outcome import Outcome
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from k8sflow.task.host.framing import Piece, ResultLine, decode
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from tests.s3server import BUCKET, KEYS, Server
from tests.support import environment, load_flow, wait_for, write_flow

pytestmark = [pytest.mark.s3, pytest.mark.slow]
SOURCE = """
    import os, time
    from tests.waiting import wait_for
    class F(FlowSpec):
        @step
        def start(self):
            print("before", flush=True)
            open("ready", "w").close()
            wait_for(lambda: os.path.exists("go"))
            print("after", flush=True)
            {last}
            self.x = 1
            self.next(self.end)
        @step
        def end(self): pass
"""


@dataclass
class Pod:
    """An agent's process that has started its task, and its bucket."""

    server: Server
    process: subprocess.Popen[bytes]
    folder: Path
    run_store: RunStore

    def go(self) -> None:
        (self.folder / "code/go").touch()

    def end(self) -> tuple[TaskResult, str]:
        """The result, and what the container's log shows."""
        output, _ = self.process.communicate(timeout=90)
        lines = [decode(line) for line in output.splitlines()]
        shown = b"".join(piece.data for piece in lines if isinstance(piece, Piece)).decode()
        (text,) = [line.text for line in lines if isinstance(line, ResultLine)]
        return TaskResult.from_json(text), shown


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "s3").mkdir()
    found = Server(tmp_path / "s3")
    yield found
    found.stop()


def started(server: Server, folder: Path, last: str = "", **variables: str) -> Pod:
    """A pod in the middle of its task."""
    file = write_flow(folder / "source", SOURCE.format(last=last))
    store = S3Store(f"s3://{BUCKET}", endpoint=server.endpoint, region="us-east-1")
    code, saved = package.build(file.parent), ArtifactStore(store, "F")
    saved.save_blob(code.sha256, [code.archive])
    run_store = RunStore(store, "F", "r")
    run_store.create(RunRecord("F", "r", file.name, {}, compile_flow(load_flow(file)).graph, package=code.sha256))
    work = folder / "pod"
    work.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "k8sflow.task.host.agent", TaskSpec("F", "r", TaskName("start")).to_json(),
         f"--store={store.url}", "--flow=F", f"--package={code.sha256}", f"--file={file.name}"],
        cwd=work, env=environment(**KEYS, K8SFLOW_ENDPOINT=server.endpoint, **variables), stdout=subprocess.PIPE,
    )  # fmt: skip
    wait_for((work / "code/ready").exists)
    return Pod(server, process, work, run_store)


def test_a_result_waits_in_hand_and_says_so(server: Server, tmp_path: Path) -> None:
    """The task has finished; it is committed when the bucket is back, and its log is whole."""
    pod = started(server, tmp_path)
    server.stop()
    pod.go()
    assert pod.process.stdout is not None
    shown = b""
    while b"can't be reached" not in shown:
        shown += (line := pod.process.stdout.readline())
        assert line, shown
    assert b"Retrying for up to 10 min" in shown
    server.start()
    result, _ = pod.end()
    assert result.outcome is Outcome.SUCCEEDED
    assert result.note == ""
    assert pod.run_store.read_commit("start", "0") is not None
    assert pod.run_store.read_log("start", "0", 0, "stdout") == b"before\nafter\n"


def test_patience_that_ends_is_the_infrastructures_failure(server: Server, tmp_path: Path) -> None:
    """With the advice, and with the output that is missing in the bucket."""
    pod = started(server, tmp_path, K8SFLOW_STORAGE_PATIENCE_SECONDS="1")
    server.stop()
    pod.go()
    result, shown = pod.end()
    assert "after" in shown
    assert "Traceback" not in shown
    assert result.outcome is Outcome.STORAGE_ERROR
    assert result.failure is not None
    assert not result.failure.is_final
    assert "resume" in result.failure.resolution


def test_output_that_could_not_be_stored_is_part_of_the_result(server: Server, tmp_path: Path) -> None:
    """The task failed by itself, which is its outcome; the run's end lists the missing bytes."""
    pod = started(server, tmp_path, "raise ValueError('mine')", K8SFLOW_STORAGE_PATIENCE_SECONDS="1")
    server.stop()
    pod.go()
    result, shown = pod.end()
    assert result.outcome is Outcome.USER_ERROR
    assert "ValueError: mine" in str(result.failure)
    assert re.search(r"bytes of stdout (and \d+ bytes of stderr )?could not be stored", result.note)
    assert "the bucket" in result.note or server.endpoint in result.note
    assert "Traceback" not in shown


def test_a_wrong_endpoint_ends_the_first_task_for_good(server: Server, tmp_path: Path) -> None:
    """In seconds, with the setting to correct; a later task would wait, since an earlier one has reached the bucket."""
    server.stop()
    process = subprocess.Popen(
        [sys.executable, "-m", "k8sflow.task.host.agent", TaskSpec("F", "r", TaskName("start")).to_json(),
         f"--store=s3://{BUCKET}", "--flow=F", "--package=0", "--file=flow.py"],
        cwd=tmp_path, env=environment(**KEYS, K8SFLOW_ENDPOINT=server.endpoint), stdout=subprocess.PIPE,
    )  # fmt: skip
    result, shown = Pod(server, process, tmp_path, RunStore(FolderStore(str(tmp_path)), "F", "r")).end()
    assert result.outcome is Outcome.STORAGE_ERROR
    assert result.failure is not None
    assert result.failure.is_final
    assert f"{server.endpoint} can't be reached for" in result.failure.summary
    assert "the connection was refused" in result.failure.summary
    assert "K8SFLOW_IN_CLUSTER_ENDPOINT" in result.failure.resolution
    assert "Retrying for up to 15 s" in shown
