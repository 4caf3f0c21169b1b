"""Windows and macOS as machines from which runs are started and read, imitated by taking away what they lack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import run_flow, run_in, write_flow

pytestmark = pytest.mark.slow  # each process imports what there is of other projects
SCRIPT = Path(__file__).parents[1] / "other_systems.py"
USER = {"K8SFLOW_USER": "ada"}
SYSTEMS = ("win32", "darwin")
FLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            print("hello")
            self.x = [1, 2]
            self.next(self.end)
        @step
        def end(self):
            pass
"""


def on(system: str, *line: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python on an imitated system."""
    return run_in(cwd, sys.executable, str(SCRIPT), system, *map(str, line), **USER, **variables)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_public_name_can_be_imported(system: str, tmp_path: Path) -> None:
    code = "import k8sflow; [getattr(k8sflow, name) for name in k8sflow.__all__]; print('all')"
    done = on(system, "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("all\n", "")


@pytest.mark.parametrize("system", SYSTEMS)
def test_flows_are_checked_and_shown(system: str, tmp_path: Path) -> None:
    file = write_flow(tmp_path, FLOW)
    assert on(system, file, "check", cwd=tmp_path).stdout == "F: 2 steps, no mistakes.\n"
    assert on(system, file, "show", cwd=tmp_path).stdout == "start\n    -> end\nend\n"
    assert on(system, file, "run", "--help", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_runs_are_read(system: str, tmp_path: Path) -> None:
    """By the commands, and by the client."""
    file = write_flow(tmp_path, FLOW)
    assert run_flow(file, "--trace", **USER).returncode == 0
    assert json.loads(on(system, file, "runs", "--json", cwd=tmp_path).stdout)[0]["status"] == "succeeded"
    assert on(system, file, "logs", "start/0", cwd=tmp_path).stdout == "hello\n"
    assert "[1, 2]" in on(system, file, "dump", "start/0", cwd=tmp_path).stdout
    assert "user code" in on(system, file, "timeline", cwd=tmp_path).stdout
    code = "from k8sflow import Flow, namespace; namespace(None); print(Flow('F').latest_run['start'].task.data.x)"
    done = on(system, "-c", code, cwd=tmp_path)
    assert done.stdout == "[1, 2]\n", done.stderr


@pytest.mark.parametrize("command", [("run",), ("resume",), ("spin", "start")])
def test_windows_refuses_steps_on_this_machine(command: tuple[str, ...], tmp_path: Path) -> None:
    """And says where they can run; nothing of a run is written."""
    file = write_flow(tmp_path, FLOW)
    assert run_flow(file, **USER).returncode == 0
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in str(path)}
    done = on("win32", file, *command, cwd=tmp_path)
    assert done.returncode == 1
    assert "local runs need Linux or macOS" in done.stderr
    assert "--with kubernetes" in done.stderr
    assert "WSL" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in str(path)} == before


def test_runner_is_refused_on_windows(tmp_path: Path) -> None:
    file = write_flow(tmp_path, FLOW)
    done = on("win32", "-c", f"from k8sflow import Runner; Runner({str(file)!r}).run()", cwd=tmp_path)
    assert "RunError: Runner can't start a process on this machine" in done.stderr


def test_macos_runs_steps_on_this_machine(tmp_path: Path) -> None:
    """Without pidfds, epoll and CPU affinities."""
    file = write_flow(tmp_path, FLOW)
    done = on("darwin", file, "run", "--trace", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[start/0] hello" in done.stdout


def test_the_settings_of_a_user_of_windows_are_found(tmp_path: Path) -> None:
    """Windows has no HOME."""
    (tmp_path / "home/.config/k8sflow").mkdir(parents=True)
    (tmp_path / "home/.config/k8sflow/config.toml").write_text('bucket = "mine"\n')
    code = "from pathlib import Path; from k8sflow import config; print(config.load(Path('/')).bucket)"
    done = on("win32", "-c", code, cwd=tmp_path, HOME=str(tmp_path / "home"))
    assert done.stdout == "mine\n", done.stderr
