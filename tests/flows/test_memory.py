"""Tasks that the kernel kills when memory runs out, in a cgroup with a real limit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from k8sflow.client import Run
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.cgroups import limited_memory
from tests.support import write_flow

HEAD = """
from k8sflow import FlowSpec, catch, current, retry, step
from tests.waiting import wait_for
import glob, os, signal, subprocess, sys, time
"""
LIMIT_MEBIBYTES = 200
FILL = "bytearray(1 << 30)"
IN_A_CHILD = f"subprocess.run([sys.executable, '-c', '{FILL}'], check=True)"


def run_within(folder: Path, source: str, *arguments: str) -> tuple[str, Run]:
    """Run a flow that succeeds under the limit; return its output and its records."""
    file = write_flow(folder, source, head=HEAD)
    with limited_memory(LIMIT_MEBIBYTES) as group:
        command = [sys.executable, str(file), "run", "--run-id", "r", *arguments]
        printed = group.run(f"import os, sys\nos.chdir({str(folder)!r})\nos.execv(sys.executable, {command!r})")
    return printed, Run(RunStore(FolderStore(str(folder / ".k8sflow")), "F", "r"))


@pytest.mark.parametrize("body", [FILL, IN_A_CHILD], ids=["itself", "a child"])
def test_a_task_that_is_killed_for_memory_is_reported_as_such(tmp_path: Path, body: str) -> None:
    """The report has the figures and advice; a retry for this alone runs it again, and @catch gets a MemoryError."""
    source = f"""
class F(FlowSpec):
    @catch(var="failed", print_exception=False)
    @retry(times=1, minutes_between_retries=0, on=("out_of_memory",))
    @step
    def start(self):
        {body}
        self.next(self.end)
    @step
    def end(self):
        self.kind = self.failed.type
"""
    printed, found = run_within(tmp_path, source)
    assert "(retry 1 of 1)" in printed
    assert found.run_store.attempts("start", "0") == [0, 1]
    outcome = found.run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "out_of_memory"
    assert "used more than the limit of 210 MB here" in outcome.summary
    assert "limit 210 MB" in outcome.detail
    assert ("killed by SIGKILL" in outcome.detail) is (body == FILL)
    assert ("CalledProcessError" in outcome.detail) is (body == IN_A_CHILD)
    assert "--max-workers" in outcome.resolution
    assert "memory=419" in outcome.resolution
    assert found["end"].task.data.kind == "builtins.MemoryError"


@pytest.mark.slow
def test_failures_beside_it_or_after_it_are_reported_as_themselves(tmp_path: Path) -> None:
    """The kernel's count is of the whole cgroup: one kill explains one failure, and none that started later."""
    source = f"""
class F(FlowSpec):
    @step
    def start(self):
        self.items = ["memory", "error", "killed"]
        self.next(self.work, foreach="items")
    @catch(var="failed", print_exception=False)
    @step
    def work(self):
        if self.input == "memory":
            wait_for(lambda: os.path.exists("beside"))
            {FILL}
        open("beside", "w").close()
        wait_for(lambda: glob.glob(".k8sflow/F/runs/*/tasks/work/0/0/outcome.json"))
        if self.input == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        assert self.input is None
        self.next(self.join)
    @step
    def join(self, inputs):
        self.outcomes = [i.failed.outcome for i in inputs]
        self.next(self.end)
    @step
    def end(self): pass
"""
    _, found = run_within(tmp_path, source, "--max-workers", "2")
    assert found["join"].task.data.outcomes == ["out_of_memory", "user_error", "user_error"]
