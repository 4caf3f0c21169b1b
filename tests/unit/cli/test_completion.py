"""Shell completion: the proposals, and that shells understand them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from k8sflow.cli.flow import _group
from k8sflow.cli.main import main
from k8sflow.flow.compile import declared
from k8sflow.flow.spec import FlowSpec
from tests.inprocess import run_all, runner_of
from tests.support import environment, load_flow, write_flow

SOURCE = """
    class F(FlowSpec):
        n = Parameter("n", default=2)
        @step
        def start(self): self.next(self.work, foreach="items")
        items = (1, 2)
        @step
        def work(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""
OLD, NEW = "20260101-000000-000000", "20260102-000000-000000"


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FlowSpec]:
    """A flow with two runs."""
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    found = load_flow(write_flow(tmp_path, SOURCE))
    for run in (OLD, NEW):
        run_all(runner_of(found, tmp_path, run))
    return found


@pytest.mark.parametrize(
    ("words", "typed", "completed"),
    [
        (["resume"], "", ["start", "work", "join", "end"]),
        (["resume", "--origin-run-id"], "2026", [NEW, OLD]),
        (["attach"], OLD[:8], [OLD]),
        (["spin"], "wo", ["work"]),
        (["logs", "show"], "", [NEW, OLD, "start", "work", "join", "end"]),
        (["dump"], f"{OLD}/w", [f"{OLD}/work"]),
        (["dump"], f"{OLD}/work/", [f"{OLD}/work/0", f"{OLD}/work/1"]),
        (["dump"], "work/", ["work/0", "work/1"]),
        (["dump"], "work/1/", []),
        (["dump"], "nope/", []),
        (["tag", "add", "--run-id"], "", [NEW, OLD]),
    ],
)
def test_a_shell_completes_steps_and_runs(
    flow: type[FlowSpec], words: list[str], typed: str, completed: list[str]
) -> None:
    """And the parts of a place; of what is not there it says nothing."""
    assert _completions(_group(declared(flow)), words, typed) == completed


def test_a_shell_completes_runs_of_the_datastore(flow: type[FlowSpec], tmp_path: Path) -> None:
    """The option is read before the words that follow it."""
    group = _group(declared(flow))
    before = dict(os.environ)
    try:
        assert _completions(group, ["--datastore", str(tmp_path / "empty"), "attach"], "") == []
        assert _completions(group, ["attach", "--datastore", str(tmp_path / "store")], "") == [NEW, OLD]
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_shell_completes_flows_and_their_runs(flow: type[FlowSpec]) -> None:
    """These are the commands of `k8sflow`."""
    assert _completions(main, ["logs", "show"], "") == ["F"]
    assert _completions(main, ["dump"], "F/2") == [f"F/{NEW}", f"F/{OLD}"]
    assert _completions(main, ["dump"], "F/w") == ["F/work"]
    assert _completions(main, ["tag", "list"], "G/") == []


def _completions(command: click.Command, words: list[str], typed: str) -> list[str]:
    found = ShellComplete(command, {}, "flow.py", "_FLOW_PY_COMPLETE").get_completions(words, typed)
    return [item.value for item in found]


def test_bash_completes(flow: type[FlowSpec], tmp_path: Path) -> None:
    """A flow's file that may be executed: its commands, parameters and runs."""
    file = tmp_path / "flow.py"
    file.write_text(f"#!{sys.executable}\n{file.read_text()}")
    file.chmod(0o755)
    script = """
        eval "$(flow.py completion bash)"
        ask() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _flowpy_completion "$1"; echo "${COMPREPLY[@]}"
        }
        ask flow.py res
        ask flow.py run --n
        ask flow.py attach 20260101
    """
    asked = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}", K8SFLOW_ROOT=str(tmp_path / "store")),
    )
    assert asked.stdout.splitlines() == ["resume", "--namespace --no-cache --n", OLD]
    assert asked.stderr == ""
