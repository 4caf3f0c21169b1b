"""The folder of runs on a real file system that is full or read-only, or written by a newer version."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.sources import foreach
from tests.support import run_flow, write_flow

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a file system at ``.k8sflow`` beside the flow; mount(2) needs root."""
    with ExitStack() as stack:

        def mounted(*options: str) -> Path:
            return stack.enter_context(tmpfs(tmp_path / ".k8sflow", ",".join(options)))

        yield mounted


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        while folder.is_mount():
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


FILLERS = {
    "an artifact": ("self.big = os.urandom(8_000_000)", "start|work"),
    "a file beside": ("open('.k8sflow/other', 'wb').write(bytes(8_000_000))", "work"),
    "output": ("os.system('head -c 8M /dev/zero | tr \"\\\\0\" x')", "work"),
}


@pytest.mark.parametrize("kind", FILLERS)
def test_a_disk_that_fills_up_is_reported(tmp_path: Path, mount: Mount, kind: str) -> None:
    """The message has the cause and advice; the exit code is 1, with no traceback of k8sflow, and no partial file."""
    root = mount("size=4m")
    done = run_flow(write_flow(tmp_path, foreach(FILLERS[kind][0])), "--max-workers", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left on device" in done.stdout + done.stderr
    if kind != "a file beside":  # the user's own write
        assert "free some space" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert not list(root.rglob(".tmp-*"))
    assert not list(root.glob("F/runs/*/tasks/work/0/commit.json"))
    for commit in root.rglob("commit.json"):
        json.loads(commit.read_bytes())


def test_a_disk_that_is_full_from_the_start_is_reported(tmp_path: Path, mount: Mount) -> None:
    """The report comes before anything runs."""
    root = mount("size=64k")
    filled = subprocess.run(["dd", "if=/dev/zero", f"of={root}/other"], stderr=subprocess.DEVNULL, check=False)
    assert filled.returncode != 0
    done = run_flow(write_flow(tmp_path, foreach("pass")))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_read_only_file_system_is_reported(tmp_path: Path, mount: Mount) -> None:
    """The message has the setting that chooses another folder."""
    mount("ro")
    done = run_flow(write_flow(tmp_path, foreach("pass")))
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert "K8SFLOW_ROOT" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_file_system_that_becomes_read_only_is_reported(tmp_path: Path, mount: Mount) -> None:
    """An error of the disk does this in the middle of a run."""
    root = mount("size=4m")
    # A second mount, since a file system with a file open for writing can't be changed to read-only.
    body = f"self.index == 1 and os.system('mount --bind -o ro {root} {root}')"
    done = run_flow(write_flow(tmp_path, foreach(body)), "--max-workers", "1")
    assert done.returncode == 1
    assert "Read-only file system" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_runs_of_a_newer_version_stay_unchanged(tmp_path: Path) -> None:
    """A new run beside them succeeds."""
    file = write_flow(tmp_path, foreach("pass"))
    assert run_flow(file).returncode == 0
    (record,) = (tmp_path / ".k8sflow/F/runs").glob("*/run.json")
    newer = json.dumps({**json.loads(record.read_bytes()), "format": 99, "more": {}})
    record.write_text(newer)
    done = run_flow(file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert record.read_text() == newer
