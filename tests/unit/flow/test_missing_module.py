"""A package at the top of a flow's file, which only the environments of its steps have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import flow_command, write_flow

SOURCE = """
    import atexit, sys
    before = sys.excepthook
    from k8sflow import pypi
    during = sys.excepthook
    {line}
    atexit.register(lambda: print("the hook", during is before, sys.excepthook is before))

    class F(FlowSpec):
        @pypi(packages={{"a-package": "1.0"}})
        @step
        def start(self):
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize("line", ["import a_package", "import a_package.inner"])
def test_the_import_of_such_a_package_is_explained(tmp_path: Path, line: str) -> None:
    done = flow_command(write_flow(tmp_path, SOURCE.format(line=line)), "check")
    assert "imports a_package at the top of a file" in done.stderr
    assert "The environment of step start has it" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_other_exceptions_are_pythons(tmp_path: Path) -> None:
    """Also those of an import."""
    done = flow_command(write_flow(tmp_path, SOURCE.format(line="import another_package")), "check")
    assert "ModuleNotFoundError: No module named 'another_package'" in done.stderr
    assert "Traceback" in done.stderr


def test_a_command_has_the_hook_of_the_user(tmp_path: Path) -> None:
    """Only the import of the file has another one."""
    done = flow_command(write_flow(tmp_path, SOURCE.format(line="")), "check")
    assert "the hook False True" in done.stdout, done.stderr
    replaced = SOURCE.format(line="sys.excepthook = before = print")
    done = flow_command(write_flow(tmp_path, replaced), "check")
    assert "the hook False True" in done.stdout, done.stderr
