"""``env show``, ``env diff`` and ``env lock``: the packages of steps, without a run or after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support import flow_command, write_flow
from tests.wheels import make_wheel, shades, uv_settings

HEAD = "from k8sflow import FlowSpec, pypi, step\n"
TWO = """
    class F(FlowSpec):
        @pypi(packages={"shade": "FIRST"})
        @step
        def start(self):
            self.next(self.middle)
        @pypi(packages={"paint": ""})
        @step
        def middle(self):
            self.next(self.end)
        @step
        def end(self): ...
"""
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    shades(tmp_path / "wheels")
    return uv_settings(tmp_path / "wheels", tmp_path / "cache")


@pytest.fixture
def command(tmp_path: Path, variables: dict[str, str]) -> Run:
    """Run a command of ``k8sflow`` in the folder of the flow."""

    def run(*words: str) -> CompletedProcess[str]:
        program = [sys.executable, "-c", "from k8sflow.cli.main import main; main()", *words]
        environment = {**os.environ, **variables}
        return subprocess.run(
            program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    return run


def two(tmp_path: Path, first: str) -> Path:
    return write_flow(tmp_path, TWO.replace("FIRST", first), head=HEAD)


def test_lock_resolves_without_running_and_the_run_uses_it(
    tmp_path: Path, command: Run, variables: dict[str, str]
) -> None:
    flow = two(tmp_path, ">=1")
    done = command("env", "lock", flow.name, "--json")
    assert done.returncode == 0, done.stderr
    locks = json.loads(done.stdout)
    found = {lock["steps"][0]: {p["name"]: p["version"] for p in lock["packages"]} for lock in locks}
    assert found == {"start": {"shade": "2.0"}, "middle": {"paint": "1.0", "shade": "1.0"}}
    assert not (tmp_path / ".k8sflow").exists()
    assert not (tmp_path / "cache/k8sflow/environments").exists()
    make_wheel(tmp_path / "wheels", "shade", "3.0", {"shade.py": ""})
    assert flow_command(flow, "run", "--run-id", "r1", **variables).returncode == 0
    shown = json.loads(command("env", "show", "F/r1", "--json").stdout)
    assert shown == locks
    assert "3.0" in flow_command(flow, "env", "lock", "--refresh-environments", **variables).stdout


def test_lock_writes_files_that_uv_installs(tmp_path: Path, command: Run) -> None:
    two(tmp_path, "1.0")
    done = command("env", "lock", "flow.py", "--output", "locks")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "locks").iterdir()) == ["pylock.middle.toml", "pylock.start.toml"]
    assert "paint" in (tmp_path / "locks/pylock.middle.toml").read_text()
    assert "middle: Python" in done.stdout


def test_lock_for_pods_is_that_of_their_platform(tmp_path: Path, command: Run) -> None:
    two(tmp_path, "1.0")
    done = command("env", "lock", "flow.py", "--with", "kubernetes", "--json")
    assert done.returncode == 0, done.stderr
    assert {lock["platform"] for lock in json.loads(done.stdout)} == {"x86_64-manylinux_2_28"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lock", "missing.py"], "'missing.py' does not exist"),
        (["lock", "plain.py"], "plain.py runs no flow"),
        (["lock", "broken.py"], "broken.py can't be read as Python: line 1"),
        (["show", "F/r1", "strat"], "Did you mean 'start'?"),
        (["show", "F/r1", "end"], "step end of F/r1 has no packages of its own"),
        (["show", "F/r9"], "r9"),
        (["diff", "F/r1", "F/r1/start"], "is not a run"),
    ],
)
def test_what_can_not_be_shown_is_an_error(
    tmp_path: Path, command: Run, variables: dict[str, str], words: list[str], message: str
) -> None:
    flow = two(tmp_path, "1.0")
    (tmp_path / "plain.py").write_text("import math\n")
    (tmp_path / "broken.py").write_text("127.0.0.1 localhost\n")
    if "F/" in words[1]:
        assert flow_command(flow, "run", "--run-id", "r1", **variables).returncode == 0
    done = command("env", *words)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_diff_names_what_changed_by_step(tmp_path: Path, command: Run, variables: dict[str, str]) -> None:
    assert flow_command(two(tmp_path, "1.0"), "run", "--run-id", "r1", **variables).returncode == 0
    flow = two(tmp_path, "2.0")
    flow.write_text(flow.read_text().replace('@pypi(packages={"paint": ""})', "@pypi(packages={'shade': '1.0'})"))
    assert flow_command(flow, "run", "--run-id", "r2", **variables).returncode == 0
    done = command("env", "diff", "F/r1", "F/r2", "--json")
    assert [(each["step"], each["name"], each["change"], each["after"]) for each in json.loads(done.stdout)] == [
        ("start", "shade", "changed", "2.0"),
        ("middle", "paint", "removed", None),
    ]
    table = flow_command(flow, "env", "diff", "r1", "r2").stdout.split("\n")
    assert table[1].split() == ["start", "shade", "changed", "1.0", "2.0"]
    assert "the same packages" in command("env", "diff", "F/r1", "F/r1").stderr


def test_a_flow_without_packages_says_so(tmp_path: Path, command: Run) -> None:
    write_flow(tmp_path, TWO.replace("@pypi(packages", "# (packages"), head=HEAD)
    done = command("env", "lock", "flow.py")
    assert done.returncode == 0
    assert "No step of F has packages of its own." in done.stderr
    assert json.loads(command("env", "lock", "flow.py", "--json").stdout) == []
