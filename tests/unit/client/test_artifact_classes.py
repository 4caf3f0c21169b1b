"""Artifacts whose classes are in the flow's own file, read in a process that runs another program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.support import environment, run_flow, write_flow

SOURCE = """
    import beside

    class Point:
        class Inner:
            pass
        def __init__(self, x):
            self.x = x
        def double(self):
            return 2 * self.x

    class F(FlowSpec):
        @step
        def start(self):
            self.point, self.inner, self.other = Point(4), Point.Inner(), beside.Other()
            self.next(self.end)
        @step
        def end(self):
            from k8sflow import current
            self.same = type(current.run["start"].task.data.point) is Point
"""
READ = 'from k8sflow import Flow\ndata = Flow("F").latest_run["start"].task.data\n'


def _python(code: str, folder: Path, root: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *before, "-c", code],
        cwd=folder,
        env=environment(K8SFLOW_ROOT=str(root)),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """A flow's file after a run, with its state beside it; like some files, it has no ``__main__`` guard."""
    file = write_flow(tmp_path / "flows", SOURCE, tail="\nF()\n")
    (file.parent / "beside.py").write_text("class Other: pass\n")
    done = run_flow(file, "--run-id", "r1")
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "elsewhere").mkdir()
    return file


def test_a_class_of_the_flows_file_is_loaded_anywhere(flow: Path, tmp_path: Path) -> None:
    """The original file is used, with the modules beside it. A task reads it as its own class."""
    code = READ + (
        "print(data.point.double(), type(data.inner).__qualname__, type(data.other).__module__.rpartition('.')[2])\n"
        'print(Flow("F").latest_run.data.same)'
    )
    shown = _python(code, tmp_path / "elsewhere", flow.parent / ".k8sflow")
    assert shown.stdout == "8 Point.Inner beside\nTrue\n", shown.stderr


def test_a_class_of_the_same_name_in_the_reader_is_not_used(flow: Path, tmp_path: Path) -> None:
    """The class comes from the flow's file."""
    shown = _python(f"class Point: pass\n{READ}print(data.point.double())", tmp_path, flow.parent / ".k8sflow")
    assert shown.stdout == "8\n", shown.stderr


def test_an_imported_module_is_used(flow: Path) -> None:
    """isinstance() works then."""
    flow.write_text(flow.read_text().replace("\nF()\n", "\nif __name__ == '__main__':\n    F()\n"))
    shown = _python(
        f"import flow\n{READ}print(isinstance(data.point, flow.Point))", flow.parent, flow.parent / ".k8sflow"
    )
    assert shown.stdout == "True\n", shown.stderr


def test_a_deleted_or_changed_file_is_reported(flow: Path, tmp_path: Path) -> None:
    """The error has the artifact, the class, the file, and advice."""
    source = flow.read_text()
    for text, words in (
        (source.replace("class Point", "class Pont"), "flow.py has no Point any more"),
        (f"1 / 0\n{source}", "flow.py can't be imported: ZeroDivisionError"),
        (f"raise SystemExit(3)\n{source}", "flow.py can't be imported: SystemExit: 3"),
        (None, "which does not exist here, and has no code package"),
    ):
        flow.unlink() if text is None else flow.write_text(text)
        shown = _python(READ + "data.point", tmp_path, flow.parent / ".k8sflow")
        assert shown.returncode == 1
        assert "ArtifactError: the artifact 'F/r1/start/0/point' (a __main__.Point) can't be loaded" in shown.stderr
        assert words in shown.stderr
        assert "Read it in the folder of flow.py" in shown.stderr


def test_the_code_package_has_the_class_too(flow: Path, tmp_path: Path) -> None:
    """A run on Kubernetes may have been started from another machine."""
    store = FolderStore(str(flow.parent / ".k8sflow"))
    code = package.build(flow.parent)
    ArtifactStore(store, "F").save_blob(code.sha256, [code.archive])
    record = (flow.parent / ".k8sflow/F/runs/r1/run.json").read_text()
    (flow.parent / ".k8sflow/F/runs/r1/run.json").write_text(
        record.replace('"package":null', f'"package":"{code.sha256}"')
    )
    for name in ("flow.py", "beside.py"):
        (flow.parent / name).unlink()
    root = flow.parent / ".k8sflow"
    shown = _python(READ + "print(data.point.double(), type(data.other).__module__.rpartition('.')[2])", tmp_path, root)
    assert shown.stdout == "8 beside\n", shown.stderr
    read = 'from k8sflow import Flow\ncode = Flow("F").latest_run.code\n'
    shown = _python(read + "print(code.script_name, 'class Point' in code.flowspec, code.files())", tmp_path, root)
    assert shown.stdout.startswith("flow.py True [('beside.py', 18), ('flow.py', "), shown.stderr
    assert RunStore(store, "F", "r1").read().source == str(flow)
