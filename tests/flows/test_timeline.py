"""Traced local runs: what is stored, and what `timeline` shows of it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import flow_command, run_flow, write_flow

SOURCE = """
    import os, signal
    from k8sflow import catch
    class F(FlowSpec):
        fails = Parameter("fails", default="")
        @step
        def start(self):
            self.items = [0, 1]
            self.next(self.work, foreach="items")
        @catch
        @step
        def work(self):
            if self.input and self.fails == "error":
                raise ValueError("no")
            if self.input and self.fails == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            self.next(self.join)
        @step
        def join(self, inputs):
            self.next(self.end)
        @step
        def end(self):
            pass
"""


def test_a_run_without_trace_stores_nothing_of_it(tmp_path: Path) -> None:
    """And `timeline` says how to get one."""
    file = write_flow(tmp_path, SOURCE)
    assert run_flow(file).returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.name in {"trace", "trace.json"}]
    refused = flow_command(file, "timeline")
    assert refused.returncode == 1
    assert "run --trace" in refused.stderr


def test_the_timeline_of_a_local_run(tmp_path: Path) -> None:
    """Each execution has its phases, also one that failed, and the chain goes from the first step to the last."""
    file = write_flow(tmp_path, SOURCE)
    assert run_flow(file, "--trace", "--fails", "error").returncode == 0
    found = json.loads(flow_command(file, "timeline", "--json").stdout)
    assert {each["step"] for each in found["executions"]} == {"start", "work", "join", "end"}
    for execution in found["executions"]:
        assert {"queued", "loading", "user code"} <= execution["phases"].keys()
        assert all(taken >= 0 for taken in execution["phases"].values())
    assert [each["outcome"] for each in found["executions"]].count("user_error") == 1
    assert found["chain"][0] == "start/0"
    assert found["chain"][-1] == "end/0"
    drawn = flow_command(file, "timeline", COLUMNS="80").stdout
    assert "user code" in drawn
    assert "\x1b" not in drawn
    step = json.loads(flow_command(file, "timeline", "work", "--json").stdout)
    assert {each["step"] for each in step["executions"]} == {"work"}


def test_a_killed_task_is_in_the_timeline(tmp_path: Path) -> None:
    """With what its driver knows; the variable turns the trace on as well."""
    file = write_flow(tmp_path, SOURCE)
    assert run_flow(file, "--fails", "kill", K8SFLOW_TRACE="1").returncode == 0
    chrome = tmp_path / "trace.json"
    assert flow_command(file, "timeline", "--chrome", str(chrome)).returncode == 0
    events = json.loads(chrome.read_text())["traceEvents"]
    assert any(event["name"] == "unknown" and event["args"]["task"] == "work/1" for event in events)
