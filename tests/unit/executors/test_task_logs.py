"""The stored output of tasks on this machine, in a bucket that goes away meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow.executors.base import Finished, Output, TaskEvent
from k8sflow.executors.local import LocalExecutor
from k8sflow.executors.task_logs import open_logs
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.patience import Patience
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3 import S3Store
from k8sflow.task.spec import TaskName, TaskSpec
from tests import s3server
from tests.inprocess import runner_of
from tests.support import DEADLINE_SECONDS, load_flow, wait_for, write_flow

pytestmark = pytest.mark.s3
LINES = 60
FLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            import os, time
            number = 0
            while not os.path.exists("go"):
                print(number, flush=True)
                number += 1
                time.sleep(0.05)
            self.next(self.end)
        @step
        def end(self):
            pass
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3server.Server]:
    """A server of the test's own, which it may stop."""
    for name, value in s3server.KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "s3").mkdir()
    found = s3server.Server(tmp_path / "s3")
    yield found
    found.stop()


def test_an_outage_holds_up_no_output_and_no_end(
    tmp_path: Path, server: s3server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output is passed on while the bucket is away, and stored when it is back; so is that of a task that has ended."""
    monkeypatch.chdir(tmp_path)
    patience = Patience(60, 60)
    store = S3Store(f"s3://{s3server.BUCKET}", endpoint=server.endpoint, region="us-east-1", patience=patience)
    runner = runner_of(load_flow(write_flow(tmp_path, FLOW)), tmp_path, store=store)
    events: list[TaskEvent] = []
    executor = LocalExecutor(events.append, runner, 2, log_patience=60)

    def shown() -> bytes:
        return b"".join(event.data for event in events if isinstance(event, Output) and event.stream == "stdout")

    try:
        executor.submit([TaskSpec("F", "r1", TaskName("start"))])
        wait_for(shown)
        wait_for(lambda: store.exists(runner.run_store.task_key("start", "0", "0/stdout")))
        server.stop()
        before = shown().count(b"\n")
        wait_for(lambda: shown().count(b"\n") > before + LINES)
        server.start()
        (tmp_path / "go").touch()
        finished = wait_for(lambda: next((event for event in events if isinstance(event, Finished)), None))
        assert finished.result.outcome is Outcome.SUCCEEDED, finished.result
        assert finished.result.note == ""
    finally:
        executor.close()
    assert runner.run_store.read_log("start", "0", 0, "stdout") == shown()


def test_output_that_can_not_be_stored_is_reported(server: s3server.Server) -> None:
    """When the patience is over, with a sentence for the end of the run."""
    patience = Patience(0, 0)
    store = S3Store(f"s3://{s3server.BUCKET}", endpoint=server.endpoint, region="us-east-1", patience=patience)
    logs = open_logs(RunStore(store, "F", "r1"), TaskSpec("F", "r1", TaskName("start")), lambda: 0.0)
    server.stop()
    logs.add("stdout", b"lost")
    losses: list[str] = []
    thread = logs.finish(losses.append)
    assert thread is not None
    thread.join(DEADLINE_SECONDS)
    (loss,) = losses
    assert "4 bytes of stdout could not be stored" in loss
