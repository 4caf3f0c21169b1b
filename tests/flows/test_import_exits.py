"""A flow's file that ends its process while a task imports it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import run_flow, write_flow

SOURCE = """
import os, signal, sys
if "step" in sys.argv:
    {end}
class F(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("sys.exit(3)", "sys.exit(3) was called while it was imported at {file}:5"),
        ("sys.exit()", "sys.exit() was called while it was imported at {file}:5"),
        ("os._exit(3)", "the task's process ended with exit code 3 while it imported flow.py"),
        ("os.kill(os.getpid(), 9)", "the task's process was killed by SIGKILL while it imported flow.py"),
    ],
)
def test_the_report_names_the_import_instead_of_the_step(tmp_path: Path, end: str, said: str) -> None:
    file = write_flow(tmp_path, SOURCE.format(end=end))
    done = run_flow(file)
    assert done.returncode == 1
    assert said.format(file=file) in done.stdout + done.stderr
