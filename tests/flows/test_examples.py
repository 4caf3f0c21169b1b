"""The examples, run on this machine; their results are read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from k8sflow.client import Flow
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from tests.support import run_flow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _run(name: str, folder: Path, *arguments: str) -> str:
    file = Path(shutil.copy(EXAMPLES / name, folder))
    done = run_flow(file, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _reads_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _data(flow: str) -> Any:
    return Flow(flow).latest_run["end"].task.data


def test_bigsum(tmp_path: Path) -> None:
    """The sum of a random matrix is about n²/2."""
    shown = _run("bigsum.py", tmp_path, "--n", "2000")
    assert _data("BigSum").total == pytest.approx(2000**2 / 2, rel=0.01)
    assert f"The sum is {_data('BigSum').total:,.1f}" in shown


def test_branches(tmp_path: Path) -> None:
    """Mean and median of the same numbers; only the requested artifacts are merged."""
    _run("branches.py", tmp_path, "--size", "101")
    data = _data("Branches")
    assert data.median_centre == 50
    assert data.mean_centre == pytest.approx((sum(range(100)) + 10**9) / 101)
    assert len(data.numbers) == 101
    assert "centre" not in data


@pytest.mark.slow
def test_foreach(tmp_path: Path) -> None:
    """The best of five models."""
    pytest.importorskip("sklearn")
    _run("foreach.py", tmp_path)
    data = _data("Digits")
    assert data.accuracy > 0.95
    assert max(data.results.values()) == pytest.approx(data.accuracy)
    assert sorted(task.data.strength for task in Flow("Digits").latest_run["train"]) == sorted(data.results)
    assert data.strength == data.model.C


def test_a_run_writes_few_files(tmp_path: Path) -> None:
    """Each task has a commit, an outcome and its output; the run has three files, and a blob for each large value."""
    _run("branches.py", tmp_path, "--size", "5000")
    files = [path for path in (tmp_path / ".k8sflow").rglob("*") if path.is_file()]
    assert all(
        len([path for path in task.rglob("*") if path.is_file()]) <= 4
        for task in (tmp_path / ".k8sflow").glob("*/runs/*/tasks/*/*")
    )
    assert sorted(path.name for path in (tmp_path / ".k8sflow").glob("*/runs/*/*") if path.is_file()) == [
        "driver.lock",
        "outcome.json",
        "run.json",
    ]
    store = FolderStore(str(tmp_path / ".k8sflow"))
    commit = json.loads(
        bytes(store.get(next(key for key in store.list_keys("Branches/runs/") if "end/0/commit" in key)))
    )
    blobs = {path.name for path in files if "blobs" in path.parts}
    assert {
        ref["blob"] for ref in commit["artifacts"].values() if "inline" not in ref or ref["inline"] is None
    } == blobs
    assert ArtifactStore(store, "Branches").load_blob(blobs.pop(), "numbers")
    assert not any(path.name.startswith(".tmp") for path in files)
