"""Flows that are in no file: the error describes how they were started."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from tests.support import HEAD, TAIL, environment

SOURCE = f"""{HEAD}
class F(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self): pass
{TAIL}"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "run"], "Python read the flow from its standard input"),
        (["-c", SOURCE, "run"], "The flow was given as text, to python -c"),
        (["app.pyz", "run"], "python -m zipfile -e app.pyz app; python app/__main__.py run"),
    ],
)
def test_the_way_of_starting_is_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__main__.py").write_text(SOURCE)
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment(),
        input=SOURCE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "in no file that a task could run" in done.stderr
