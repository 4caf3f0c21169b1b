"""The command lines of README and docs that need a cluster; those with ``--detach`` are in test_controller.py."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.kind.conftest import Namespace

ROOT = Path(__file__).parents[2]


def test_the_readmes_flow_runs_on_kubernetes(namespace: Namespace, tmp_path: Path) -> None:
    """The first block is the file that it names, run by the line that follows it."""
    page = (ROOT / "README.md").read_text()
    source = re.search(r"^```python\n(# bigsum\.py\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    line = re.search(r"^python bigsum\.py (run --with kubernetes)$", page, re.MULTILINE)
    assert source
    assert line
    (tmp_path / "bigsum.py").write_text(source[1])
    done = namespace.run(tmp_path / "bigsum.py", *shlex.split(line[1])[1:], "--n", "2000")
    assert done.code == 0, done.text
    done.seen(r"\[end/0\] the sum is \d+")
