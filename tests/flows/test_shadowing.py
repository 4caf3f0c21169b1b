"""Files beside a flow that have the names of modules of the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import environment, flow_command, run_flow, write_flow

SOURCE = """
import sys
{before}
import {name}
class F(FlowSpec):
    @step
    def start(self):
        self.mine = {name}.MINE
        self.next(self.end)
    @step
    def end(self):
        import {name}
        print("mine is", {name}.MINE + self.mine)
"""
NAMES = ("math", "queue", "random", "secrets", "select", "statistics", "tomllib", "types", "uuid")


def test_the_flow_imports_its_own_files_and_k8sflow_imports_pythons(tmp_path: Path) -> None:
    """This holds in the command, the fork server and the tasks; other commands work too."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("MINE = 21\n")
    (tmp_path / "k8sflow.toml").write_text("")
    file = write_flow(tmp_path, SOURCE.format(name="random", before=f"import {', '.join(NAMES)}"))
    done = run_flow(file)
    assert "mine is 42" in done.stdout, done.stdout + done.stderr
    assert flow_command(file, "show").returncode == flow_command(file, "logs", "end").returncode == 0


def test_a_package_in_a_folder_that_the_flow_adds(tmp_path: Path) -> None:
    (tmp_path / "src" / "queue").mkdir(parents=True)
    (tmp_path / "src" / "queue" / "__init__.py").write_text("MINE = 21\n")
    done = run_flow(write_flow(tmp_path, SOURCE.format(name="queue", before="sys.path.insert(0, 'src')")))
    assert "mine is 42" in done.stdout, done.stdout + done.stderr


def test_modules_imported_before_k8sflow_stay(tmp_path: Path) -> None:
    """Examples are the user's file, and a module of Python's own."""
    (tmp_path / "random.py").write_text("MINE = 1\n")
    (tmp_path / "re.py").write_text("MINE = 1\n")
    (tmp_path / "main.py").write_text(
        "import random, sys\nbefore = random\nsys.path.pop(0); import re; sys.path.insert(0, '.'); plain = re\n"
        "import k8sflow\nfrom k8sflow import Runner\nimport random, re\nassert random is before and re is plain\n"
    )
    subprocess.run([sys.executable, "main.py"], cwd=tmp_path, env=environment(), check=True, timeout=60)


def test_nothing_is_imported_early_if_nothing_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import sys, k8sflow\nassert 'k8sflow.cli.flow' not in sys.modules\n")
    subprocess.run([sys.executable, "main.py"], cwd=tmp_path, env=environment(), check=True, timeout=60)
