"""The behavior on which code for Metaflow's client depends."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Generator, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from k8sflow import Flow, Metaflow, Run, Step, Task, __version__, current, default_namespace, namespace
from k8sflow.client import NamespaceMismatchError, NotFoundError
from k8sflow.client.artifact import DataArtifact
from k8sflow.errors import StorageError
from k8sflow.exception import MetaflowNamespaceMismatch, MetaflowNotFound
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.current import TaskFacts
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user
from tests.inprocess import run_all, runner_of
from tests.support import load_flow, run_flow, write_flow

SOURCE = """
    class F(FlowSpec):
        n = Parameter("n", default=3)
        @step
        def start(self):
            self.next(self.short, self.split)
        @step
        def split(self):
            self.items = list(range(self.n))
            self.next(self.work, foreach="items")
        @step
        def work(self):
            self.square = self.input ** 2
            self.next(self.join)
        @step
        def join(self, inputs):
            self.next(self.meet)
        @step
        def short(self):
            self.next(self.meet)
        @step
        def meet(self, inputs):
            self.next(self.end)
        @step
        def end(self): pass
"""
FAILING = """
    class F(FlowSpec):
        @step
        def start(self):
            self.items = [0, 1]
            self.next(self.work, foreach="items")
        @step
        def work(self):
            import sys
            sys.stderr.write("on the way")
            if self.index == 1:
                raise ValueError("as asked")
            self.next(self.join)
        @step
        def join(self, inputs):
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which the client finds the runs."""
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "store"))
    yield tmp_path
    default_namespace()


def _run(root: Path, source: str = SOURCE, run: str = "r1") -> Run:
    return run_all(runner_of(load_flow(write_flow(root, source)), root, run))


def test_the_newest_part_is_first(root: Path) -> None:
    """This holds for steps and tasks, so ``step.task`` of a foreach is its last branch."""
    run = _run(root)
    assert [step.id for step in run] == ["end", "meet", "join", "work", "split", "short", "start"]
    assert [task.index for task in run["work"]] == [2, 1, 0]
    assert run["work"].task.data.square == 4
    assert [step.id for step in run["start"].child_steps] == ["short", "split"]
    assert [step.id for step in run["meet"].parent_steps] == ["short", "join"]


def test_a_step_that_has_not_started_is_missing(root: Path) -> None:
    """It is found neither by iteration nor by name, for example after a switch took the other branch."""
    store = RunStore(FolderStore(str(root / "store")), "F", "half")
    graph = compile_flow(load_flow(write_flow(root, SOURCE))).graph
    store.create(RunRecord("F", "half", "flow.py", {}, graph, user=current_user()))
    run = Run(store)
    assert list(run) == []
    store.commit("start", "0", Commit(0, ("short", "split"), {}))
    assert [step.id for step in run] == ["start"]
    assert "end" not in run
    assert "nothing" not in run
    for name, words in (("end", "has not started"), ("nothing", "no step 'nothing'")):
        with pytest.raises(KeyError, match=words):
            run[name]
    with pytest.raises(MetaflowNotFound):
        Step("F/half/end")


def test_a_flow_without_successful_runs_has_none(root: Path) -> None:
    """``latest_successful_run`` is None then."""
    store = RunStore(FolderStore(str(root / "store")), "F", "r1")
    store.create(RunRecord("F", "r1", "flow.py", {}, compile_flow(load_flow(write_flow(root, SOURCE))).graph))
    namespace(None)
    assert Flow("F").latest_successful_run is None
    namespace("first")
    store.change_tags(lambda _: ("first",))
    flow = Flow("F")
    store.change_tags(lambda _: ())
    assert flow.latest_run is None
    assert not flow.is_in_namespace()


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
def test_times_are_naive_and_local(root: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """Those of every part, and they can be taken from ``datetime.now()``."""
    run = _run(root)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        task = run["end"].task
        for part in (Flow("F"), run, run["end"], task, task["n"]):
            assert part.created_at is not None
            assert part.created_at.tzinfo is None
        for part in (run, run["end"], task, task["n"]):
            assert part.finished_at is not None
            assert part.finished_at.tzinfo is None
        assert run.finished_at == task.finished_at
        assert task.created_at is not None
        assert abs(datetime.now() - task.created_at) < timedelta(minutes=5)  # noqa: DTZ005  the point of this test
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_hour_that_occurs_twice_is_unambiguous(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When summer time ends, by ``fold``: ``timestamp()`` gives back what was stored."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        for run, seconds in (("first", 1793511000.0), ("second", 1793514600.0)):  # 01:30 EDT, 01:30 EST
            store = RunStore(FolderStore(str(root / "zone")), "F", run)
            store.create(RunRecord("F", run, "flow.py", {}, Graph("F"), created=seconds))
            created = Run(store).created_at
            assert f"{created:%H:%M}" == "01:30"
            assert created.timestamp() == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_namespace_without_runs_of_the_flow_refuses(root: Path) -> None:
    """The error differs from that of a flow without runs; existing objects stay readable."""
    run = _run(root)
    task, flow = run["work"].task, Flow("F")
    namespace("user:nobody")
    for look in (
        lambda: Flow("F"),
        lambda: Metaflow()["F"],
        lambda: Run("F/r1"),
        lambda: Step("F/r1/work"),
        lambda: Task("F/r1/work/0"),
        lambda: DataArtifact("F/r1/work/0/n"),
    ):
        with pytest.raises(MetaflowNamespaceMismatch):
            look()
    assert not issubclass(NamespaceMismatchError, NotFoundError)
    with pytest.raises(MetaflowNotFound):
        Flow("G")
    assert list(Metaflow()) == []
    for part in (Flow("F", everyone=True), run, run["work"], task, task["n"]):
        assert part.is_in_namespace() is False
    assert flow.latest_run is not None
    assert task.data.square == 4
    assert run.parent.id == "F"
    namespace(None)
    assert all(part.is_in_namespace() for part in (flow, run, run["work"], task, task["n"]))


def test_a_failed_run_is_not_finished(root: Path) -> None:
    """Its task is not finished either; other properties report how they ended."""
    alone = ("--run-id", "r1", "--max-workers", "1")  # so that the first branch ends before the second one fails
    assert run_flow(write_flow(root, FAILING), *alone, K8SFLOW_ROOT=str(root / "store")).returncode == 1
    run = Run("F/r1")
    assert (run.finished, run.finished_at, run.status, run.has_ended) == (False, None, "failed", True)
    failed, done = run["work"]["1"], run["work"]["0"]
    assert (failed.finished, failed.has_ended, failed.successful, failed.index) == (False, True, False, 1)
    assert done.finished
    assert failed.created_at is not None
    assert failed.finished_at is not None
    assert run.created_at <= failed.created_at <= failed.finished_at + timedelta(milliseconds=1)  # as exact as a log's


def test_the_standard_error_has_the_traceback_of_a_failure(root: Path) -> None:
    """It follows the task's own output, in every form of the log except the raw one."""
    # one branch after the other: the failure of one ends the others, which may not have written by then
    one = ("--run-id", "r1", "--max-workers", "1")
    assert run_flow(write_flow(root, FAILING), *one, K8SFLOW_ROOT=str(root / "store")).returncode == 1
    failed = Task("F/r1/work/1")
    lines = failed.stderr.splitlines()
    assert lines[:2] == ["on the way", "Traceback (most recent call last):"]
    assert lines[-1] == "ValueError: as asked"
    assert failed.stderr_size == len(failed.stderr.encode())
    assert [line for _, line in failed.loglines("stderr")] == lines
    assert list(failed.loglines("stderr", as_unicode=False))[-1][1] == b"ValueError: as asked"
    assert failed.log("stderr") == b"on the way"
    assert failed.stdout == ""
    assert Task("F/r1/work/0").stderr == "on the way"


def test_the_standard_error_reports_a_death_without_a_traceback(root: Path) -> None:
    """It has the summary of the outcome."""
    store = RunStore(FolderStore(str(root / "store")), "F", "r1")
    store.create(RunRecord("F", "r1", "flow.py", {}, compile_flow(load_flow(write_flow(root, SOURCE))).graph))
    store.write_outcome("start", "0", 0, OutcomeRecord(Outcome.OUT_OF_MEMORY, 5.0, "killed at 1 GiB"))
    assert Task("0", parent=Run(store)["start"]).stderr == "killed at 1 GiB\n"


def test_names_of_metaflow_are_there(root: Path) -> None:
    """Each has its value."""
    run = _run(root)
    task = run["work"]["1"]
    assert [part.path_components for part in (Flow("F"), run, run["work"], task, task["n"])] == [
        ["F"],
        ["F", "r1"],
        ["F", "r1", "work"],
        ["F", "r1", "work", "1"],
        ["F", "r1", "work", "1", "n"],
    ]
    assert [step.id for step in run["join"].parent_steps] == ["work"]
    assert list(task.parent_task_pathspecs) == ["F/r1/split/0"]
    assert list(task.child_task_pathspecs) == ["F/r1/join/0"]
    assert list(run["work"].control_tasks()) == []
    assert run["work"].control_task is None
    assert task.environment_info is run["work"].environment_info is None
    assert Flow("F").tags == Flow("F").user_tags == Flow("F").system_tags == frozenset()
    assert sorted(task.artifacts._fields) == ["items", "n", "square"]
    values = {name: artifact.data for name, artifact in task.data._artifacts.items()}
    assert values == {"items": [0, 1, 2], "n": 3, "square": 1}
    assert task.runtime_name == "dev"


def test_the_system_tags_name_versions_and_runtime(root: Path) -> None:
    """They are those at the run's start, for every reader."""
    done = run_flow(write_flow(root, FAILING), "--run-id", "r1", K8SFLOW_ROOT=str(root / "store"))
    assert done.returncode == 1
    python = ".".join(map(str, sys.version_info[:3]))
    assert Run("F/r1").system_tags >= {f"python_version:{python}", f"k8sflow_version:{__version__}", "runtime:dev"}
    assert Run("F/r1")["start"].task.metadata_dict["python_version"] == python


def test_parts_can_be_pickled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be read in a process with another working folder and namespace."""
    monkeypatch.setenv("K8SFLOW_ROOT", "/nowhere")
    run = _run(root)
    monkeypatch.setenv("K8SFLOW_ROOT", str(root / "store"))
    flow = Flow("F")
    parts = pickle.dumps([flow, run, run["work"], run["work"].task, run["work"].task["square"], run["work"].task.data])
    monkeypatch.setenv("K8SFLOW_ROOT", "/nowhere")
    namespace("user:nobody")
    flow, run, step, task, artifact, data = pickle.loads(parts)
    assert flow.latest_run.id == run.id == "r1"
    assert step.task.index == task.index == 2
    assert artifact.data == data.square == 4


def test_a_task_reads_the_store_of_its_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of its process don't matter."""
    run = _run(root)
    monkeypatch.setenv("K8SFLOW_ROOT", str(root / "other"))
    with current.running(TaskFacts("F", "r1", "end", "0", run_store=run.run_store)):
        namespace(None)
        assert [found.id for found in Flow("F")] == ["r1"]


def test_neighbours_are_generators_that_read_on_demand(root: Path) -> None:
    """As Metaflow's are: code such as ``next(task.parent_tasks)`` works, and a wide join reads one branch for it."""
    run = _run(root)
    join = run["join"].task
    for found in (
        join.parent_tasks,
        join.child_tasks,
        join.parent_task_pathspecs,
        join.child_task_pathspecs,
        run["join"].parent_steps,
        run["join"].child_steps,
    ):
        assert isinstance(found, Generator)
    first = next(join.parent_tasks)
    assert (first.pathspec, type(first)) == ("F/r1/work/0", Task)
    waiting = join.parent_tasks
    commit = Path(run.run_store.store.url, run.run_store.task_key("work", "2", "commit.json"))
    commit.write_text("damaged")
    assert [next(waiting).id, next(waiting).id] == ["0", "1"]  # the third one's commit has not been read
    with pytest.raises(StorageError, match="is damaged"):
        next(waiting)


def test_the_parameters_of_a_run_are_a_step_of_their_own(root: Path) -> None:
    """``run["_parameters"].task`` has the parameters and constants; iteration over the run skips the step."""
    run = _run(root, SOURCE.replace("        @step", "        limit = [1, 2]\n        @step", 1))
    step = run["_parameters"]
    assert (step.pathspec, type(step), [task.id for task in step]) == ("F/r1/_parameters", Step, ["0"])
    assert "_parameters" in run
    assert "_parameters" not in [found.id for found in run]
    task = step.task
    assert (task.data.n, task["n"].data, task.data.limit) == (3, 3, [1, 2])
    assert sorted(artifact.id for artifact in task) == ["limit", "n"]
    assert "square" not in task.data
    assert (task.successful, task.finished, task.exception, task.index) == (True, True, None, None)
    assert task.created_at == task.finished_at == step.finished_at == run.created_at
    assert (task.stdout, task.stderr, task.attempts, task.code) == ("", "", [0], None)
    assert task.metadata_dict["runtime"] == "dev"
    assert [*task.parent_tasks, *task.child_tasks, *step.parent_steps, *step.child_steps] == []
    assert (step.control_task, task.tags) == (None, run.tags)


def test_the_parameters_of_a_run_are_found_by_their_pathspec(root: Path) -> None:
    """Step, Task and DataArtifact take it; there is one task."""
    _run(root)
    assert Step("F/r1/_parameters").task.data.n == 3
    assert Task("F/r1/_parameters/0").data.n == Task("F/r1/_parameters/0", attempt=0).data.n == 3
    assert DataArtifact("F/r1/_parameters/0/n").data == 3
    with pytest.raises(NotFoundError, match="no task F/r1/_parameters/1"):
        Task("F/r1/_parameters/1")
    with pytest.raises(NotFoundError, match="no artifact 'square'"):
        DataArtifact("F/r1/_parameters/0/square")
