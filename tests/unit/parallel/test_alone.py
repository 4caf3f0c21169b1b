"""The folder is self-contained: a copy works in another project, under another name, with the standard library only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import k8sflow.parallel

SCRIPT = """
import math, sys
sys.path.insert(0, {folder!r})
from borrowed import loop, parallel_imap, parallel_map
loop.START_METHOD = {method!r}
assert parallel_map(math.sqrt, range(100), 2, backend={backend!r}) == [math.sqrt(i) for i in range(100)]
assert list(parallel_imap(math.sqrt, iter(range(100)), 2, backend={backend!r})) == [math.sqrt(i) for i in range(100)]
print([name for name in ("k8sflow", "numpy", "cloudpickle", "threadpoolctl") if name in sys.modules])
"""


@pytest.mark.parametrize(("method", "backend"), [("fork", "processes"), ("spawn", "processes"), ("fork", "threads")])
def test_a_copy_works_under_another_name(tmp_path: Path, method: str, backend: str) -> None:
    """Without k8sflow, numpy, cloudpickle or threadpoolctl."""
    (folder,) = k8sflow.parallel.__path__
    shutil.copytree(folder, tmp_path / "borrowed", ignore=shutil.ignore_patterns("__pycache__"))
    script = SCRIPT.format(folder=str(tmp_path), method=method, backend=backend)
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
