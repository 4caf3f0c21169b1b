"""Reading a run while it is running, and its reports to readers, with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import environment, flow_command, latest, run_flow, running, wait_for, write_flow

SOURCE = """
    import os, time
    from tests.waiting import wait_for
    class F(FlowSpec):
        @step
        def start(self):
            print("first", flush=True)
            wait_for(lambda: os.path.exists("go"))
            print("last", end="", flush=True)
            self.next(self.end)
        @step
        def end(self):
            from k8sflow import current, get_namespace
            self.found = current.namespace, get_namespace()
"""


def test_the_output_of_a_running_run_is_followed(tmp_path: Path) -> None:
    """Each line is shown as soon as it exists, to the end of the run; `logs` shows the lines so far."""
    file = write_flow(tmp_path, SOURCE)
    with running(file):
        wait_for(lambda: list(tmp_path.rglob("stdout")))
        follower = subprocess.Popen(
            [sys.executable, str(file), "logs", "--follow", "--json"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        assert (first["pathspec"].split("/")[2:], first["text"]) == (["start", "0"], "first")
        assert flow_command(file, "logs").stdout == "[start/0] first\n"
        assert json.loads(flow_command(file, "runs", "--json").stdout)[0]["status"] == "running"
        (tmp_path / "go").touch()
        rest, _ = follower.communicate(timeout=30)
    assert [json.loads(line)["text"] for line in rest.splitlines()] == ["last"]
    assert follower.returncode == 0
    assert first["time"] < json.loads(rest.splitlines()[0])["time"]
    assert json.loads(flow_command(file, "runs", "--json").stdout)[0]["status"] == "succeeded"


@pytest.mark.slow
def test_a_run_may_read_another_namespace(tmp_path: Path) -> None:
    """It is the one of --namespace; by default that of the user who started it."""
    file = write_flow(tmp_path, SOURCE)
    (tmp_path / "go").touch()
    assert run_flow(file, K8SFLOW_USER="ada").returncode == 0
    read = flow_command(file, "dump", "end/0/found", "--json", K8SFLOW_USER="ada")
    assert "user:ada" in read.stdout, read.stderr
    assert run_flow(file, "--namespace", "user:bob").returncode == 0
    assert latest(tmp_path)["end"].task.data.found == ("user:bob", "user:bob")


def test_an_invalid_tag_is_refused_before_the_run(tmp_path: Path) -> None:
    """It is reported like any other mistake on the command line."""
    file = write_flow(tmp_path, SOURCE)
    done = run_flow(file, "--tag", "a\nb")
    assert done.returncode == 2
    assert "can't be a tag: it has a line break" in done.stderr
    assert not list(tmp_path.rglob("run.json"))
