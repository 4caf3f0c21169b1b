"""Readers find the classes of the run that they read, and never those of another flow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import run_flow, run_in

TRAIN = """
from models import Model, Only{name}
import models
from k8sflow import FlowSpec, step
class Here:
    word = "{name}"
class Train{name}(FlowSpec):
    @step
    def start(self):
        self.model, self.only, self.here, self.late = Model(), Only{name}(), Here(), models.late
        self.next(self.end)
    @step
    def end(self): pass
if __name__ == "__main__":
    Train{name}()
"""
MODELS = """
class Model:
    def predict(self): return "{name}1"
class Only{name}: pass
def late():
    import helper
    return helper.WORD
"""
READ = """
from k8sflow import Flow
for name in "ABAB":
    data = Flow("Train" + name).latest_run.data
    print(data.model.predict(), type(data.only).__name__, data.here.word, data.late())
"""
EXPECTED = "A1 OnlyA A A\nB1 OnlyB B B\n" * 2


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_in(folder, sys.executable, *arguments)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create two flows in their own folders, each with a ``models.py``, both with a run; and a folder for a reader."""
    project = tmp_path / "project"
    for name in "AB":
        folder = project / name.lower()
        folder.mkdir(parents=True)
        (project / ".k8sflow").mkdir(exist_ok=True)
        (folder / "train.py").write_text(TRAIN.format(name=name))
        (folder / "models.py").write_text(MODELS.format(name=name))
        (folder / "helper.py").write_text(f"WORD = {name!r}\n")
        done = run_flow(folder / "train.py")
        assert done.returncode == 0, done.stdout + done.stderr
    (project / "notebooks").mkdir()
    (project / "notebooks/read.py").write_text(READ)
    return project


def test_two_flows_with_modules_of_the_same_name_are_read_in_turn(project: Path) -> None:
    """Each has its own classes, and the modules that its functions import when they are called."""
    done = python(project / "notebooks", "read.py")
    assert done.stdout == EXPECTED, done.stderr


def test_a_readers_own_module_of_that_name_stays_its_own(project: Path) -> None:
    """It may be imported before or after."""
    (project / "notebooks/models.py").write_text("class Model:\n    def predict(self): return 'mine'\n")
    (project / "notebooks/read.py").write_text(f"import models\n{READ}print(models.Model().predict())\n")
    assert python(project / "notebooks", "read.py").stdout == f"{EXPECTED}mine\n"
    (project / "notebooks/read.py").write_text(f"{READ}import models\nprint(models.Model().predict())\n")
    assert python(project / "notebooks", "read.py").stdout == f"{EXPECTED}mine\n"


def test_a_project_that_was_moved_can_be_read(project: Path) -> None:
    """Its code is found beside the store."""
    moved = project.rename(project.parent / "elsewhere")
    done = python(moved / "notebooks", "read.py")
    assert done.stdout == EXPECTED, done.stderr


def test_deleted_code_is_never_replaced_by_another_flows(project: Path) -> None:
    """The error names the module."""
    (project / "a/models.py").unlink()
    (project / "notebooks/read.py").write_text(f"import sys; sys.path.insert(0, '../b'); import models\n{READ}")
    done = python(project / "notebooks", "read.py")
    assert done.returncode != 0
    assert "B1" not in done.stdout
    assert "models" in done.stderr


def test_a_module_of_a_package_is_read_with_its_relative_imports(tmp_path: Path) -> None:
    """The flow's own commands, the k8sflow command and the client can read it, from elsewhere too."""
    (tmp_path / "pkg/flows").mkdir(parents=True)
    for folder in ("pkg", "pkg/flows"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "pkg/shapes.py").write_text("class Square:\n    def __repr__(self): return 'a square'\n")
    (tmp_path / "pkg/flows/train.py").write_text(
        "from ..shapes import Square\nfrom k8sflow import FlowSpec, step\n"
        "class Result:\n    def __repr__(self): return 'a result'\n"
        "class P(FlowSpec):\n"
        "    @step\n    def start(self):\n        self.square, self.result = Square(), Result()\n"
        "        self.next(self.end)\n"
        "    @step\n    def end(self): pass\n"
        "if __name__ == '__main__':\n    P()\n"
    )
    done = python(tmp_path, "-m", "pkg.flows.train", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    command_line = str(Path(sys.executable).with_name("k8sflow"))
    for command in (["-m", "pkg.flows.train", "dump", "end"], [command_line, "dump", "P"]):
        done = python(tmp_path, *command)
        assert "a square" in done.stdout, done.stdout + done.stderr
        assert "a result" in done.stdout, done.stdout + done.stderr
    (tmp_path / "elsewhere").mkdir()
    code = "from k8sflow import Flow; d = Flow('P').latest_run.data; print(d.square, d.result)"
    assert python(tmp_path / "elsewhere", "-c", code).stdout == "a square a result\n"
