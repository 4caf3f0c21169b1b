# ruff: noqa: E501  flows in one string each
"""Launchers of runs: a task is started in the same way by each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import latest, run_flow, run_in, write_flow

SOURCE = """
import dataclasses, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
@dataclasses.dataclass
class Point:
    x: int
class F(FlowSpec):
    n = Parameter("n", default=2)
    here = Point(5)
    @step
    def start(self):
        self.point = Point(self.n)
        self.next(self.end)
    @step
    def end(self):
        assert isinstance(self.point, Point), type(self.point)
        assert isinstance(self.here, Point), type(self.here)
        self.got = (self.point.x, __name__, __file__.rpartition("/")[2])
"""


def start(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return run_in(folder, sys.executable, *command)


@pytest.mark.parametrize(
    "command",
    [
        ["flow.py", "run", "--n", "3"],
        ["./flow.py", "run", "--n", "3"],
        ["-m", "flow", "run", "--n", "3"],
        ["-m", "cProfile", "-o", "profile", "flow.py", "run", "--n", "3"],
        ["-m", "trace", "--count", "--coverdir", "counts", "flow.py", "run", "--n", "3"],
        ["-m", "pdb", "-c", "continue", "flow.py", "run", "--n", "3"],
        ["-X", "dev", "-W", "ignore", "flow.py", "run", "--n", "3"],
        [
            "-c",
            "import runpy, sys; sys.argv = ['flow.py', 'run', '--n', '3']; runpy.run_path('flow.py', run_name='__main__')",
        ],
        [
            "-c",
            "import runpy, sys; sys.argv = ['flow.py', 'run', '--n', '3']; runpy.run_module('flow', run_name='__main__', alter_sys=True)",
        ],
        [
            "-c",
            "import sys; sys.argv = ['flow.py', 'run', '--n', '3']; exec(compile(open('flow.py').read(), 'flow.py', 'exec'))",
        ],
    ],
    ids=lambda command: " ".join(command)[:40],
)
def test_every_launcher_starts_the_same_tasks(tmp_path: Path, command: list[str]) -> None:
    """The import starts a thread, and the artifact and the constant are of a class of the flow's own file."""
    write_flow(tmp_path, SOURCE)
    done = start(tmp_path, *command)
    assert "succeeded" in done.stdout, done.stdout + done.stderr
    assert latest(tmp_path)["end"].task.data.got == (3, "__main__", "flow.py")


def test_a_runner_starts_them_too(tmp_path: Path) -> None:
    """It has options, and the import starts a thread."""
    write_flow(tmp_path, SOURCE)
    done = start(
        tmp_path, "-c", "from k8sflow import Runner; r = Runner('flow.py').run(n=3, tags=['x']); print(r.status)"
    )
    assert "successful" in done.stdout, done.stdout + done.stderr
    assert latest(tmp_path)["end"].task.data.got == (3, "__main__", "flow.py")


@pytest.mark.parametrize(
    "change",
    [
        "import sys; sys.argv[1:] = ['run', '--n', '3']",
        "import sys; sys.argv = ['other', 'run', '--n=3']",
        "import os, sys; sys.argv[1:] = ['run', '--n', '3'] if sys.argv[1] == 'go' else os._exit(9)",
    ],
)
def test_a_script_may_change_its_command_line(tmp_path: Path, change: str) -> None:
    """A task process runs its task even if the file changes sys.argv."""
    if "go" in change:
        write_flow(tmp_path, f"import sys\nif sys.argv[1] == 'go': del sys.argv[1]\n{SOURCE}")
        done = start(tmp_path, "flow.py", "go", "run", "--n", "3")
    else:
        write_flow(tmp_path, f"{change}\n{SOURCE}")
        done = start(tmp_path, "flow.py")
    assert "succeeded" in done.stdout, done.stdout + done.stderr
    assert latest(tmp_path)["end"].task.data.got[0] == 3


def test_a_script_may_choose_its_flow_by_its_first_argument(tmp_path: Path) -> None:
    """A task sees the original arguments."""
    write_flow(tmp_path, SOURCE, "flows.py", tail="")
    (tmp_path / "main.py").write_text("import sys, flows\nname = sys.argv.pop(1)\ngetattr(flows, name)()\n")
    done = start(tmp_path, "main.py", "F", "run", "--n", "3")
    assert "succeeded" in done.stdout, done.stdout + done.stderr


def test_a_package_is_started_by_its_name(tmp_path: Path) -> None:
    """Relative imports work."""
    write_flow(
        tmp_path, SOURCE.replace("import dataclasses", "from .beside import WORD\nimport dataclasses"), "pkg/train.py"
    )
    (tmp_path / "pkg/__init__.py").touch()
    (tmp_path / "pkg/beside.py").write_text("WORD = 1\n")
    done = start(tmp_path, "-m", "pkg.train", "run", "--n", "3")
    assert "succeeded" in done.stdout, done.stdout + done.stderr


def test_a_link_leads_to_the_flow(tmp_path: Path) -> None:
    """``__file__`` is the link, as in any Python, and modules are found beside the flow itself."""
    write_flow(tmp_path / "real", f"import beside\n{SOURCE}")
    (tmp_path / "real/beside.py").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/train").symlink_to("../real/flow.py")
    done = start(tmp_path / "bin", "train", "run", "--n", "3")
    assert "succeeded" in done.stdout, done.stdout + done.stderr


def test_a_working_folder_may_be_deleted_meanwhile(tmp_path: Path) -> None:
    """The flow is in another folder."""
    file = write_flow(tmp_path / "code", f"import os; os.path.exists('../x') and os.rmdir('../x')\n{SOURCE}")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/.k8sflow").mkdir()
    done = run_flow(file, "--n", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "code", ["exec(open('flow.py').read())", "exec(open('flow.py').read(), {'__name__': '__main__'})"]
)
def test_an_executed_text_is_refused_with_advice(tmp_path: Path, code: str) -> None:
    """Its class is in no file that a task could run."""
    write_flow(tmp_path, SOURCE)
    done = start(tmp_path, "-c", f"import sys; sys.argv = ['x', 'run']; {code}")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert "exec()" in done.stderr + done.stdout
