"""Reading runs: from any store, by name, in order, and without loading more than needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k8sflow.client import Flow, NotFoundError, Run
from k8sflow.errors import StorageError
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import OutcomeRecord, RunRecord, new_run_id
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user
from tests.inprocess import Failed, run_all, runner_of
from tests.support import load_flow, write_flow

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

SOURCE = """
    class F(FlowSpec):
        n = Parameter("n", default=11)
        fails = Parameter("fails", default=False)
        @step
        def start(self):
            self.items = list(range(self.n))
            self.big = "x" * 100_000
            self.next(self.work, foreach="items")
        @step
        def work(self):
            self.square = self.input ** 2
            if self.fails:
                raise ValueError("as asked")
            self.next(self.join)
        @step
        def join(self, inputs):
            self.total = sum(i.square for i in inputs)
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a flow, whose runs the client finds."""
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "store"))
    write_flow(tmp_path, SOURCE)
    return tmp_path


def _run(root: Path, run: str, **values: object) -> Run:
    return run_all(runner_of(load_flow(root / "flow.py"), root, run, **values))


def test_a_run_is_a_tree(root: Path) -> None:
    """Flow, run, step, task, artifact: by name, and by iteration, the newest first."""
    _run(root, "20260101-000000-000000")
    run = Flow("F").latest_run
    assert run.pathspec == "F/20260101-000000-000000"
    assert [step.id for step in run] == [step.id for step in run.steps()] == ["end", "join", "work", "start"]
    assert [task.id for task in run["work"]] == [str(i) for i in reversed(range(11))]
    assert [task.data.square for task in run["work"].tasks()] == [i**2 for i in reversed(range(11))]
    assert run["work"].task.index == 10
    assert run["work"]["3"].data.square == run["work"][3].data.square == 9
    assert run["work"]["3"].index == 3
    assert run["end"].task.data.n == 11
    assert run.data is not None
    assert run.end_task is not None
    assert run["join"].task["total"].data == sum(i**2 for i in range(11))
    assert run["start"].task["big"].pathspec == "F/20260101-000000-000000/start/0/big"
    assert run["start"].task["big"].size > 100_000
    assert run["start"].task["big"].type == "builtins.str"
    assert {artifact.id for artifact in run["start"].task} == {"items", "big", "n", "fails"}
    assert "big" in run["start"].task
    assert dir(run["start"].task.data) == ["big", "fails", "items", "n"]
    assert run.successful
    assert run.finished


def test_missing_parts_are_reported(root: Path) -> None:
    """The errors list what exists, and are KeyErrors or AttributeErrors, so that defaults work."""
    with pytest.raises(NotFoundError, match=r"no run of a flow 'F' in .*store"):
        Flow("F")
    _run(root, "20260101-000000-000000")
    flow = Flow("F")
    run = flow.latest_run
    for call, words in (
        (lambda: flow["nope"], "no run F/nope"),
        (lambda: Run("F/nope"), "no run F/nope"),
        (lambda: Run("F"), "no run"),
        (lambda: run["train"], "no step 'train'"),
        (lambda: run["work"]["99"], "no task .*work/99"),
        (lambda: run["end"].task["nothing"], "no artifact 'nothing'"),
    ):
        with pytest.raises(KeyError) as caught:
            call()
        assert caught.match(words)
    with pytest.raises(AttributeError, match="no artifact 'nothing'"):
        _ = run["end"].task.data.nothing
    assert getattr(run["end"].task.data, "nothing", 5) == 5
    assert "nope" not in flow
    assert "train" not in run


def test_the_latest_run_is_the_one_that_was_started_last(root: Path) -> None:
    """The names of the runs don't matter; an id that is a time is trusted."""
    for name in ("zebra", "20260101-000000-000000", "aardvark"):
        _run(root, name)
        store = RunStore(FolderStore(str(root / "store")), "F", name)
        path = root / "store/F/runs" / name / "run.json"
        path.unlink()
        record = RunRecord("F", name, "flow.py", {}, Graph("F"), created=time.time(), user=current_user())
        store.create(record)
    assert Flow("F").latest_run.id == "aardvark"
    assert [run.id for run in Flow("F")] == ["aardvark", "zebra", "20260101-000000-000000"]
    assert "zebra" in Flow("F")


def test_a_failed_run_has_its_failure(root: Path) -> None:
    """The task has it; the run has no end task."""
    with pytest.raises(Failed):
        _run(root, "r1", fails=True)
    run = Flow("F")["r1"]
    assert not run.successful
    assert run.data is None
    assert run.end_task is None
    assert [step.id for step in run] == ["work", "start"]
    task = run["work"].task
    assert task.has_ended
    assert not task.finished
    assert not task.successful
    assert "ValueError: as asked" in str(task.exception)
    assert task.finished_at is not None
    assert "end" not in run
    with pytest.raises(KeyError, match=r"step F/r1/end has not started(.|\n)*The started steps are work, start"):
        _ = run["end"]
    assert not run.has_ended
    RunStore(FolderStore(str(root / "store")), "F", "r1").write_run_outcome(OutcomeRecord(Outcome.USER_ERROR, 5.0))
    assert run.has_ended
    assert run.status == "failed"
    assert not run.finished
    assert run.finished_at is None
    assert Flow("F").latest_successful_run is None


def test_runs_are_found_by_tags(root: Path) -> None:
    """A run must have all of them."""
    for name, tags in (("r1", ("a",)), ("r2", ("a", "b"))):
        record = RunRecord("F", name, "flow.py", {}, Graph("F"), tags=tags, user=current_user())
        RunStore(FolderStore(str(root / "store")), "F", name).create(record)
    assert {run.id for run in Flow("F").runs("a")} == {"r1", "r2"}
    assert [run.id for run in Flow("F").runs("a", "b")] == ["r2"]
    assert list(Flow("F").runs("c")) == []


def test_a_run_without_a_record_is_ignored(root: Path) -> None:
    """A crash may leave a folder without a record, or it has another origin."""
    _run(root, "r1")
    (root / "store/F/runs/r2").mkdir()
    (root / "store/F/runs/r3").mkdir()
    (root / "store/F/runs/r3/.tmp-1").touch()
    assert [run.id for run in Flow("F")] == ["r1"]


def test_damaged_and_newer_records_are_reported(root: Path) -> None:
    """The error names the object."""
    _run(root, "r1")
    base = root / "store/F/runs/r1"
    damaged = ["{", "[]", "{}", '{"format": 1}', '{"format": 1, "other": 2}']
    for text, words in [*((text, "damaged") for text in damaged), ('{"format": 99}', "upgrade")]:
        for name in ("run.json", "tasks/start/0/commit.json", "tasks/start/0/0/outcome.json"):
            path = base / name
            before = path.read_bytes()
            path.write_text(text)
            store = RunStore(FolderStore(str(root / "store")), "F", "r1")
            with pytest.raises(StorageError, match=words) as caught:
                store.read(), store.read_commit("start", "0"), store.read_outcome("start", "0", 0)
            assert name in str(caught.value)
            path.write_bytes(before)


def test_run_ids_sort_by_time() -> None:
    """They have microseconds."""
    ids = [new_run_id(now) for now in (0.0, 1.0, 1.000001, 10.5, 1e9, 2e9)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_the_store_is_found_from_a_folder_below(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting, it is in the working directory or one of its parents."""
    _run(root, "r1")
    monkeypatch.delenv("K8SFLOW_ROOT")
    (root / "store").rename(root / ".k8sflow")
    (root / "a/b").mkdir(parents=True)
    monkeypatch.chdir(root / "a/b")
    assert Flow("F").latest_run.id == "r1"


@pytest.mark.s3
def test_a_bucket_is_read_like_a_folder(root: Path, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one is set, it is searched besides the folder."""
    _run(root, "r1")
    local = FolderStore(str(root / "store"))
    for key in local.list_keys("F/"):
        s3_store.put(key.replace("runs/r1", "runs/r2"), [local.get(key)])
    monkeypatch.setenv("K8SFLOW_BUCKET", s3_store.url.removeprefix("s3://"))
    monkeypatch.setenv("K8SFLOW_ENDPOINT", str(s3_store.endpoint))
    assert {run.id for run in Flow("F")} == {"r1", "r2"}
    assert Flow("F")["r2"]["work"]["10"].data.square == 100
    assert Flow("F")["r2"]["start"].task.data.big == "x" * 100_000
