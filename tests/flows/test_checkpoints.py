"""``current.checkpoint``: what an attempt saved is there in the next one, also in a run that resumes."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

from k8sflow.storage.folder import FolderStore
from tests.inprocess import run_source
from tests.support import flow_command, latest, run_flow, write_flow

# It is ended in each attempt until there is a file "fixed": by an exception, then by SIGKILL in the middle of a change.
COUNTER = """
    import os
    import signal
    from k8sflow import catch, current, retry
    class F(FlowSpec):
        @retry(times=1, minutes_between_retries=0)
        @step
        def start(self):
            path = os.path.join(current.checkpoint.directory, "counter")
            self.began_with = int(open(path).read()) if current.checkpoint.is_loaded else 0
            print("began with", self.began_with)
            for number in range(self.began_with + 1, 7):
                with open(path, "w") as file:
                    file.write(str(number))
                if number == 2 * current.retry_count + 3 and not os.path.exists("fixed"):
                    if current.retry_count:
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise ConnectionError("the server is away")
                current.checkpoint.save()
            self.next(self.end)
        @step
        def end(self): pass
"""


def _checkpoints(folder: Path) -> list[str]:
    return [key for key in FolderStore(str(folder / ".k8sflow")).list_keys("") if "/checkpoint/" in key]


def test_a_task_continues_where_it_was(tmp_path: Path) -> None:
    """After an exception, after SIGKILL, and in a run that resumes; only the failed run keeps its own."""
    file = write_flow(tmp_path, COUNTER)
    failed = run_flow(file)
    assert failed.returncode == 1
    assert [line.partition("] ")[2] for line in failed.stdout.splitlines() if "began" in line] == [
        "began with 0",
        "began with 2",
    ]
    assert len(_checkpoints(tmp_path)) == 2  # what it counted to, and the manifest
    (tmp_path / "fixed").touch()
    resumed = flow_command(file, "resume")
    assert resumed.returncode == 0, resumed.stderr
    run = latest(tmp_path)
    assert run["start"].task.data.began_with == 4
    assert {key.split("/")[2] for key in _checkpoints(tmp_path)} == {run.origin_run_id}


def test_a_step_that_is_named_to_resume_starts_over(tmp_path: Path) -> None:
    """With other code, perhaps, that could not read the checkpoint."""
    file = write_flow(tmp_path, COUNTER)
    assert run_flow(file).returncode == 1
    (tmp_path / "fixed").touch()
    assert flow_command(file, "resume", "start").returncode == 0
    assert latest(tmp_path)["start"].task.data.began_with == 0


IN_ONE_ATTEMPT = """
    import os
    from pathlib import Path
    from k8sflow import current, parallel_map
    class F(FlowSpec):
        @step
        def start(self):
            folder = Path(current.checkpoint.directory)
            self.folder = str(folder)
            assert list(folder.iterdir()) == [] and not current.checkpoint.is_loaded
            assert current.checkpoint.load() is False
            (folder / "a").write_text("saved")
            current.checkpoint.save()
            (folder / "a").write_text("not saved")
            (folder / "b").touch()
            assert current.checkpoint.load() is True and not current.checkpoint.is_loaded
            self.seen = {path.name: path.read_text() for path in folder.iterdir()}
            pid = os.getpid()
            def save(number):
                if os.getpid() != pid:
                    current.checkpoint.save()
            try:
                parallel_map(save, range(4), 2, backend="fork")
            except Exception as error:
                self.error = str(error)
            self.next(self.end)
        @step
        def end(self): pass
"""


def test_the_folder_can_be_set_back_to_what_was_saved(tmp_path: Path) -> None:
    """A child process can't save; the local copy is deleted with the task."""
    data = run_source(tmp_path, IN_ONE_ATTEMPT)["start"].task.data
    assert data.seen == {"a": "saved"}
    assert "used in a child process of the task" in data.error
    assert data.folder.startswith(tempfile.gettempdir())
    assert not Path(data.folder).exists()
    assert not [key for key in FolderStore(str(tmp_path / "store")).list_keys("") if "/checkpoint/" in key]


def test_a_caught_failure_leaves_no_checkpoint(tmp_path: Path) -> None:
    """The step counts as done."""
    source = """
        from k8sflow import catch, current
        class F(FlowSpec):
            @catch(var="error")
            @step
            def start(self):
                open(current.checkpoint.directory + "/a", "w").write("x")
                current.checkpoint.save()
                raise ValueError
            @step
            def end(self): pass
    """.replace("raise ValueError", "raise ValueError\n                self.next(self.end)")
    assert run_flow(write_flow(tmp_path, source)).returncode == 0
    assert _checkpoints(tmp_path) == []


def test_outside_of_a_task_there_is_none() -> None:
    """As for other fields that only a task has."""
    from k8sflow import current

    with pytest.raises(AttributeError, match=r"current.checkpoint exists only in a running task"):
        _ = current.checkpoint
    assert "checkpoint" not in current


def test_the_folder_of_a_killed_attempt_is_deleted_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed can't delete it, and checkpoints may be large."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    file = write_flow(tmp_path, COUNTER)
    assert run_flow(file).returncode == 1  # by SIGKILL
    assert len(list(temporary.glob("k8sflow-checkpoints-*"))) == 1
    (tmp_path / "fixed").touch()
    assert flow_command(file, "resume").returncode == 0
    assert list(temporary.glob("*k8sflow-checkpoint*")) == []


def test_load_keeps_the_folder_itself(tmp_path: Path) -> None:
    """It may be the working directory; and a step that deleted the folder can load it."""
    source = """
        import os, shutil
        from k8sflow import current
        class F(FlowSpec):
            @step
            def start(self):
                folder = current.checkpoint.directory
                os.chdir(folder)
                open("saved", "w").close()
                current.checkpoint.save()
                open("later", "w").close()
                assert current.checkpoint.load()
                self.working_directory = os.listdir(".")
                shutil.rmtree(folder)
                assert current.checkpoint.load()
                self.deleted = os.listdir(folder)
    """
    assert run_flow(write_flow(tmp_path, source)).returncode == 0
    data = latest(tmp_path)["start"].task.data
    assert data.working_directory == data.deleted == ["saved"]


TOGETHER = """
    import os
    import time
    from pathlib import Path
    from k8sflow import current, parallel, retry
    from tests.waiting import wait_for
    class F(FlowSpec):
        @step
        def start(self):
            self.next(self.train, num_parallel=3)
        @retry(times=1, minutes_between_retries=0)
        @parallel
        @step
        def train(self):
            file = Path(current.checkpoint.directory, "epoch")
            print("began with", file.read_text() if current.checkpoint.is_loaded else "nothing")
            file.write_text("3")
            if current.parallel.node_index != 1:  # saves nothing, and in its second execution ends before the others
                current.checkpoint.save()
            if current.parallel.node_index == 1:
                wait_for(lambda: len(list(Path(os.environ["COMMITS"]).glob("*/commit.json"))) >= 2)
            if current.parallel.node_index == 1 and not current.retry_count:
                raise ConnectionError("after the others have a result")
            self.next(self.join)
        @step
        def join(self, inputs):
            self.next(self.end)
        @step
        def end(self): pass
"""


def test_processes_that_run_together_keep_theirs_until_all_have_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run again together, and one that began at the start would wait for the others, or they for it."""
    monkeypatch.setenv("COMMITS", str(tmp_path / ".k8sflow/F/runs/it/tasks/train"))
    result = run_flow(write_flow(tmp_path, TOGETHER), "--run-id", "it")
    assert result.returncode == 0, result.stderr
    began = sorted(line for line in result.stdout.splitlines() if "began" in line)
    assert [line.partition("began with ")[2] for line in began] == ["3", "nothing", *["nothing"] * 2, "3", "nothing"]
    assert _checkpoints(tmp_path) == []


# Each attempt is killed a file operation later than the one before, until one saves its checkpoint in peace.
TORN = """
    import os
    import signal
    import sys
    from pathlib import Path
    from k8sflow import current, retry
    from k8sflow.storage import checkpoints
    checkpoints._CHUNK_BYTES = 1000
    CHANGES = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir"}
    class Killer:
        left = None
        def hear(self, event, args):
            if self.left is not None and event in CHANGES:
                self.left -= 1
                if self.left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
    class F(FlowSpec):
        @retry(times=200, minutes_between_retries=0)
        @step
        def start(self):
            killer = Killer()
            sys.addaudithook(killer.hear)
            folder = Path(current.checkpoint.directory)
            found = {path.name: path.read_text() for path in folder.iterdir()}
            sizes = {len(text) for text in found.values()}
            print("found", sorted({text[:9] for text in found.values()}), sorted(found), sizes)
            number = int(next(iter(found.values()))[:9]) if found else 0
            for name in ("a", "b", "c"):
                (folder / name).write_text(f"{number + 1:09}" * 300)
            killer.left = current.retry_count
            current.checkpoint.save()
            killer.left = None
            self.kills = current.retry_count
            self.next(self.end)
        @step
        def end(self): pass
"""


def test_a_save_that_is_killed_anywhere_leaves_one_whole_checkpoint(tmp_path: Path) -> None:
    """SIGKILL before each of its file operations: the next attempt finds the checkpoint before it, or the new one."""
    done = run_flow(write_flow(tmp_path, TORN))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert latest(tmp_path)["start"].task.data.kills > 20
    found = [line.partition("found ")[2] for line in done.stdout.splitlines() if "] found [" in line]
    numbers = [int(line[2:11]) if line.startswith("['") else 0 for line in found]
    names = "['a', 'b', 'c'] {2700}"
    assert all(line in {"[] [] set()", f"['{number:09}'] {names}"} for line, number in zip(found, numbers, strict=True))
    assert set(numbers) >= {0, 1, 2}
    steps = {after - before for before, after in pairwise(numbers)}
    assert steps == {0, 1}, "no checkpoint is lost once there is one, and each is that of the attempt before"
