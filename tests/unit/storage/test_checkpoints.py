"""Checkpoints of a task: complete or not there, found by the next attempt, and nothing of them left in the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from k8sflow.errors import StorageError
from k8sflow.storage.checkpoints import TaskCheckpoints, discard
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.objects import Buffer, ObjectStore
from k8sflow.storage.run_store import RunStore

STEP, TASK = "train", "0"


class Recording(MemoryStore):
    """A store that records what is uploaded, and refuses what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[int] = []
        self.refused = "nothing"

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        if self.refused in key:
            raise StorageError("refused")
        self.uploads.append(sum(map(len, parts)))
        super().put(key, parts)

    def delete(self, keys: Sequence[str]) -> None:
        if self.refused == "deletes":
            raise StorageError("deletes are refused.")
        super().delete(keys)


@pytest.fixture
def memory() -> Recording:
    return Recording()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that is saved."""
    found = tmp_path / "files"
    found.mkdir()
    return found


def of(store: ObjectStore, attempt: int = 0, run: str = "r1") -> TaskCheckpoints:
    """The checkpoints of the task in one attempt."""
    return TaskCheckpoints(RunStore(store, "F", run), STEP, TASK, attempt)


def loaded(checkpoints: TaskCheckpoints, tmp_path: Path) -> dict[str, bytes] | None:
    """The files that are loaded, by path; None if there is no checkpoint."""
    target = tmp_path / f"loaded-{os.urandom(4).hex()}"
    target.mkdir()
    if not checkpoints.load(target):
        return None
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_everything_in_the_folder_comes_back(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    """Large and empty files, folders, links, modes and odd names."""
    large = os.urandom((20 << 20) + 3)
    (folder / "a/b").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    (folder / "a/b/large").write_bytes(large)
    (folder / "empty").touch()
    (folder / "ünï 日本 $(x)\n'").write_text("odd")
    (folder / "run.sh").write_text("#!/bin/sh")
    (folder / "run.sh").chmod(0o750)
    (folder / "latest").symlink_to("a/b/large")
    of(store).save(folder)
    target = tmp_path / "loaded"
    target.mkdir()
    assert of(store, 1).load(target)
    assert (target / "a/b/large").read_bytes() == large
    assert (target / "empty").read_bytes() == b""
    assert (target / "empty folder").is_dir()
    assert (target / "ünï 日本 $(x)\n'").read_text() == "odd"
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o750
    assert (target / "latest").readlink() == Path("a/b/large")
    discard(RunStore(store, "F", "r1"), STEP, TASK)
    assert list(store.list_keys("F/")) == []


def test_times_and_modes_of_files_and_folders_come_back(memory: Recording, folder: Path, tmp_path: Path) -> None:
    """Programs such as make compare the times; a folder without write permission can be emptied again."""
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/tool").touch(0o555)
    for number, name in enumerate(("a/b/tool", "a/b", "a")):
        os.utime(folder / name, ns=(0, 10**18 + number))
    (folder / "a/b").chmod(0o550)
    of(memory).save(folder)
    (folder / "a/b").chmod(0o700)
    for _ in range(2):
        assert of(memory, 1).load(tmp_path / "loaded")
    for number, name in enumerate(("a/b/tool", "a/b", "a")):
        assert (tmp_path / "loaded" / name).stat().st_mtime_ns == 10**18 + number
    assert (tmp_path / "loaded/a/b").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "loaded/a/b/tool").stat().st_mode & 0o777 == 0o555


def test_a_checkpoint_says_what_it_leaves_out(
    memory: Recording, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, however often it is saved."""
    os.mkfifo(folder / "pipe")
    (folder / "file").touch()
    checkpoints = of(memory)
    for _ in range(2):
        checkpoints.save(folder)
    assert capsys.readouterr().err == "[k8sflow] the checkpoint has no pipes, sockets and devices; left out: pipe\n"
    assert of(memory, 1).load(tmp_path / "loaded")
    assert [path.name for path in (tmp_path / "loaded").iterdir()] == ["file"]


def test_only_the_parts_that_changed_are_uploaded(memory: Recording, folder: Path) -> None:
    """A part is 8 MiB of a file; the parts that are not needed any more are deleted."""
    checkpoints = of(memory)
    (folder / "weights").write_bytes(os.urandom(16 << 20))
    (folder / "log").write_bytes(b"one")
    checkpoints.save(folder)
    memory.uploads.clear()
    with (folder / "weights").open("r+b") as file:
        file.seek(8 << 20)
        file.write(b"changed")
    checkpoints.save(folder)
    *parts, _manifest = memory.uploads
    assert parts == [8 << 20]
    assert len(list(memory.list_keys("F/"))) == 4  # two parts of the weights, the log, the manifest


def test_a_save_that_is_cut_off_leaves_the_one_before(memory: Recording, folder: Path, tmp_path: Path) -> None:
    """Wherever it ends: the manifest comes last."""
    checkpoints = of(memory)
    (folder / "a").write_bytes(b"first")
    checkpoints.save(folder)
    (folder / "a").write_bytes(b"second")
    memory.refused = "manifest.json"
    with pytest.raises(StorageError):
        checkpoints.save(folder)
    assert loaded(of(memory, 1), tmp_path) == {"a": b"first"}


def test_the_last_attempt_counts(memory: Recording, folder: Path, tmp_path: Path) -> None:
    """Also where a process of an earlier one, thought to be dead, still saves; it can do no damage."""
    lost = of(memory, 0)
    (folder / "a").write_bytes(b"same")
    lost.save(folder)
    successor = of(memory, 1)
    assert loaded(successor, tmp_path) == {"a": b"same"}
    (folder / "b").write_bytes(b"new")
    successor.save(folder)
    (folder / "b").write_bytes(b"late")
    lost.save(folder)
    assert loaded(of(memory, 2), tmp_path) == {"a": b"same", "b": b"new"}


def test_a_damaged_checkpoint_is_not_used(
    memory: Recording, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one before it is, if there is one; both facts are reported."""
    (folder / "a").write_bytes(b"first")
    of(memory, 0).save(folder)
    before = {key: memory.get(key) for key in memory.list_keys("F/")}
    (folder / "a").write_bytes(b"other")
    of(memory, 1).save(folder)
    (chunk,) = [key for key in memory.list_keys("F/") if not key.endswith(".json")]
    memory.put(chunk, [b"bytes"])
    assert loaded(of(memory, 2), tmp_path) is None
    assert "the checkpoint of attempt 1 can't be used" in capsys.readouterr().err
    for key, data in before.items():
        memory.put(key, [data])
    assert loaded(of(memory, 2), tmp_path) == {"a": b"first"}


def test_a_store_that_deletes_nothing_keeps_old_checkpoints(
    memory: Recording, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saving and committing work without that right, with a note."""
    memory.refused = "deletes"
    of(memory, 0).save(folder)
    (folder / "a").write_bytes(b"x")
    of(memory, 1).save(folder)
    assert "can't be deleted: deletes are refused." in capsys.readouterr().err
    assert loaded(of(memory, 2), tmp_path) == {"a": b"x"}
    discard(RunStore(memory, "F", "r1"), STEP, TASK)
    assert "checkpoints can't be deleted" in capsys.readouterr().err


def test_a_file_that_changes_while_it_is_saved_is_refused(memory: Recording, folder: Path, tmp_path: Path) -> None:
    """Half of each would be no checkpoint of anything."""
    (folder / "a").write_bytes(b"first")
    checkpoints = of(memory)
    checkpoints.save(folder)

    class Growing(Recording):
        def put(self, key: str, parts: Sequence[Buffer]) -> None:
            (folder / "a").write_bytes(b"longer than before")

    (folder / "a").write_bytes(b"second")
    growing = TaskCheckpoints(RunStore(Growing(), "F", "r1"), STEP, TASK, 0)
    with pytest.raises(OSError, match="was changed while it was saved"):
        growing.save(folder)
    assert loaded(of(memory, 1), tmp_path) == {"a": b"first"}


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_a_manifest_writes_nothing_outside_of_the_folder(
    memory: Recording, folder: Path, tmp_path: Path, name: str
) -> None:
    """Anybody who may write to the bucket may have written it."""
    (folder / "a").write_bytes(b"x")
    of(memory).save(folder)
    (key,) = [key for key in memory.list_keys("F/") if key.endswith("manifest.json")]
    memory.put(key, [bytes(memory.get(key)).replace(b'"a"', f'"{name}"'.encode())])
    assert loaded(of(memory, 1), tmp_path) is None


def test_a_run_that_resumes_another_finds_its_checkpoint(memory: Recording, folder: Path, tmp_path: Path) -> None:
    """Its own comes first."""
    (folder / "a").write_bytes(b"origin")
    of(memory, 3, "r0").save(folder)
    resuming = TaskCheckpoints(RunStore(memory, "F", "r1"), STEP, TASK, 0, lambda: [RunStore(memory, "F", "r0")])
    assert loaded(resuming, tmp_path) == {"a": b"origin"}
    (folder / "a").write_bytes(b"own")
    resuming.save(folder)
    assert loaded(resuming, tmp_path) == {"a": b"own"}
