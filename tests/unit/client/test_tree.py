"""The tree from below: pathspecs, parents, tasks before and after a task, attempts and their lines."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from k8sflow import DataArtifact, Flow, Metaflow, Run, Step, Task
from k8sflow.client import NotFoundError
from k8sflow.client.logs import QUIET_POLLS, Follower
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from tests.inprocess import run_source, runner_of
from tests.support import load_flow, write_flow

SHAPES = """
    class F(FlowSpec):
        @step
        def start(self):
            self.n = 0
            self.outer = ["x", "y"]
            self.next(self.split, foreach="outer")
        @step
        def split(self):
            self.next(self.left, self.right)
        @step
        def left(self):
            self.n += 1
            self.again = self.n < 3
            self.next({True: self.left, False: self.meet}, condition="again")
        @step
        def right(self):
            self.nothing = []
            self.next(self.inner, foreach="nothing")
        @step
        def inner(self): self.next(self.close)
        @step
        def close(self, inputs): self.next(self.meet)
        @step
        def meet(self, inputs): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with branches in a foreach, a loop, and an empty foreach."""
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "store"))
    return run_source(tmp_path, SHAPES)


def test_all_of_it_can_be_pickled(run: Run) -> None:
    """So they can be artifacts, or be sent to another process, even after they were read."""
    task = run["left"]["1-2"]
    assert task.successful
    for part in (run.parent, run, run["left"], task, task["n"]):
        again = pickle.loads(pickle.dumps(part))
        assert (type(again), again.pathspec) == (type(part), part.pathspec)
    assert pickle.loads(pickle.dumps(task)).data.n == pickle.loads(pickle.dumps(task.data)).n == 3
    assert copy.copy(task.artifacts).n.data == pickle.loads(pickle.dumps(task.artifacts)).n.data == 3


def test_everything_is_found_by_its_pathspec(run: Run) -> None:
    """Each part has its parent."""
    artifact = DataArtifact("F/r1/left/1-2/n")
    assert artifact.data == 3
    task = Task("F/r1/left/1-2")
    assert [above.pathspec for above in (artifact.parent, task.parent, task.parent.parent, run.parent)] == [
        "F/r1/left/1-2",
        "F/r1/left",
        "F/r1",
        "F",
    ]
    assert Step("F/r1/left").task.id == "1-2"
    assert [flow.id for flow in Metaflow().flows] == ["F"]
    assert Metaflow()["F"].latest_run.id == "r1"
    assert "F" in Metaflow()
    assert "G" not in Metaflow()
    assert task.artifacts.n.data == task.artifacts["n"].data == 3
    assert {found.id for found in task.artifacts} == {"n", "outer", "again"}
    assert task.metadata_dict["foreach-indices"] == "1"
    (entry,) = [entry for entry in task.metadata if entry.name == "foreach-indices"]
    assert (entry.value, entry.type, entry.task) == ("1", "foreach-indices", task.pathspec)


@pytest.mark.parametrize(
    ("kind", "pathspec", "words"),
    [
        (Run, "G/r1", r"no run of a flow 'G'(.|\n)*The flows there are F"),
        (Run, "F/r2", r"no run F/r2(.|\n)*The runs are r1"),
        (Step, "F/r1/lefd", r"no step 'lefd'(.|\n)*Did you mean 'left'"),
        (Task, "F/r1/left/7", "no task F/r1/left/7(.|\n)*The step's tasks are 0, 0-1, 0-2, 1"),
        (Task, "F/r1/inner/0", "step F/r1/inner has not started"),
        (DataArtifact, "F/r1/left/0/m", r"no artifact 'm'(.|\n)*It has again, n, outer"),
        (Task, "", "'' names no task"),
        (DataArtifact, "F", r"'F' names no artifact(.|\n)*flow/run/step/task/artifact"),
        (Run, "F", r"'F' names no run(.|\n)*has the form flow/run"),
        (Step, "F/r1/left/0", "names no step"),
        (Run, 5, "'5' names no run"),
        (Task, None, "'None' names no task"),
    ],
)
def test_an_unknown_pathspec_is_reported(run: Run, kind: type, pathspec: Any, words: str) -> None:
    """The error lists what exists."""
    with pytest.raises(NotFoundError, match=words):
        kind(pathspec)


def test_a_run_of_a_number_is_looked_up(run: Run) -> None:
    """The ids of Metaflow's runs are numbers."""
    flow = Flow("F")
    assert 5 not in flow
    with pytest.raises(NotFoundError, match=r"no run F/5(.|\n)*The runs are r1"):
        flow[5]


def test_tasks_have_their_parents_and_children(run: Run) -> None:
    """They are found through foreach, branches, turns of a loop and joins; an empty foreach leads to its join."""
    after = {
        "start/0": ["split/0", "split/1"],
        "split/1": ["left/1", "right/1"],
        "left/1": ["left/1-1"],
        "left/1-1": ["left/1-2"],
        "left/1-2": ["meet/1"],
        "right/1": ["close/1"],
        "close/1": ["meet/1"],
        "meet/1": ["join/0"],
        "join/0": ["end/0"],
        "end/0": [],
    }
    before: dict[str, list[str]] = {}
    for name, expected in after.items():
        task = Task(f"F/r1/{name}")
        assert [_short(child) for child in task.child_tasks] == expected
        before[name] = [_short(parent) for parent in task.parent_tasks]
    assert before["start/0"] == []
    assert before["split/1"] == ["start/0"]
    assert before["left/1"] == ["split/1"]
    assert before["left/1-2"] == ["left/1-1"]
    assert before["meet/1"] == ["left/1-2", "close/1"]
    assert before["join/0"] == ["meet/0", "meet/1"]
    assert [step.id for step in run["split"].child_steps] == ["left", "right"]
    assert [step.id for step in run["meet"].parent_steps] == ["left", "close"]


def _short(task: Task) -> str:
    return f"{task.parent.id}/{task.id}"


def _executions(tmp_path: Path) -> Task:
    """A task that failed once and then succeeded, with output of both attempts."""
    store = RunStore(FolderStore(str(tmp_path / "store")), "F", "r1")
    runner_of(load_flow(write_flow(tmp_path, SHAPES)), tmp_path)
    for attempt, at in ((0, 10.0), (1, 20.0)):
        for stream in ("stdout", "stderr"):
            log = store.open_log("start", "0", attempt, stream)
            for i in range(2):
                log.write(f"{stream} {attempt} {i}\n".encode(), at + i + (stream == "stderr") / 2)
            log.write(b"\xff open", at + 5)
            log.close()
    store.write_outcome("start", "0", 0, OutcomeRecord(Outcome.USER_ERROR, 15.0, "it broke", "the trace"))
    store.commit("start", "0", Commit(1, ("split",), {}, started=20.0, finished=25.0))
    return Task("0", parent=Run(store)["start"])


def test_each_attempt_can_be_read(tmp_path: Path) -> None:
    """By default, the one that committed is read."""
    task = _executions(tmp_path)
    assert task.attempts == [0, 1]
    assert task.current_attempt == 1
    assert task.stdout == "stdout 1 0\nstdout 1 1\n\ufffd open"
    assert task.successful
    first = Task("0", parent=task.parent, attempt=0)
    assert first.stdout.startswith("stdout 0 0")
    assert not first.successful
    assert "the trace" in str(first.exception)
    with pytest.raises(NotFoundError, match="no attempt 5"):
        Task("0", parent=task.parent, attempt=5)


def test_lines_are_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    """Both streams are merged by time; bytes that aren't UTF-8 are kept."""
    task = _executions(tmp_path)
    assert [line.text for line in task.lines()] == [
        "stdout 1 0",
        "stderr 1 0",
        "stdout 1 1",
        "stderr 1 1",
        "\ufffd open",
        "\ufffd open",
    ]
    times = [at.timestamp() for at, _ in task.loglines("stdout") if at is not None]
    assert times == [20.0, 21.0, 25.0]
    assert list(task.loglines("stdout", as_unicode=False))[-1][1] == b"\xff open"
    assert task.stdout_size == len(b"stdout 1 0\nstdout 1 1\n\xff open")
    with pytest.raises(ValueError, match="no stream 'stdin'"):
        list(task.loglines("stdin"))


def test_a_follower_returns_every_line_once(tmp_path: Path) -> None:
    """It returns complete lines at once, and the rest when an attempt has ended; later attempts are followed too."""
    store = RunStore(FolderStore(str(tmp_path)), "F", "r1")
    store.create(RunRecord("F", "r1", "flow.py", {}, Graph("F")))
    follower = Follower(store, None, None, ("stdout",), None)
    assert follower.poll() == []
    log = store.open_log("start", "0", 0, "stdout")
    log.write(b"one\ntw")
    assert [line.text for line in follower.poll()] == ["one"]
    log.write(b"o\nrest")
    assert [line.text for line in follower.poll()] == ["two"]
    assert follower.poll() == []
    log.close()
    store.write_outcome("start", "0", 0, OutcomeRecord(Outcome.USER_ERROR, 1.0))
    assert follower.poll() == []  # its last output may be a moment late
    log = store.open_log("start", "0", 0, "stdout")
    log.write(b" late\nopen")
    log.close()
    found = [line.text for _ in range(QUIET_POLLS + 2) for line in follower.poll()]
    assert found == ["rest late", "open"]
    for step, attempt, stream in (("start", 1, "stdout"), ("end", 0, "stderr")):
        log = store.open_log(step, "0", attempt, stream)
        log.write(b"again\n")
        log.close()
    assert [(line.attempt, line.text) for line in follower.poll()] == [(1, "again")]
    assert follower.poll() == []


def test_all_parts_of_a_run_have_its_tags(tmp_path: Path) -> None:
    """Later tags are included."""
    task = _executions(tmp_path)
    run = task.parent.parent
    run.add_tag("later")
    artifact = DataArtifact("x", parent=task, ref=ArtifactRef("", 0, "pickle", "int"))
    for part in (task.parent, task, artifact):
        assert "later" in part.user_tags
        assert part.tags == run.tags
        assert part.system_tags == run.system_tags


def test_a_clone_is_read_from_its_origin_run(tmp_path: Path) -> None:
    """The origin's pathspec and output are used."""
    task = _executions(tmp_path)
    origin = task.parent.parent
    store = RunStore(origin.run_store.store, "F", "r2")
    store.create(RunRecord("F", "r2", "flow.py", {}, origin.record.graph, created=30.0, origin_run_id="r1"))
    store.commit("start", "0", Commit(1, ("split",), {}, started=20.0, finished=25.0, origin="F/r1"))
    resumed = Run(store)
    assert resumed.origin_pathspec == "F/r1"
    taken = Task("0", parent=resumed["start"])
    assert taken.origin_pathspec == "F/r1/start/0"
    assert taken.stdout == task.stdout
    store.commit("split", "0", Commit(0, (), {}, started=31.0, finished=32.0))
    assert Task("0", parent=resumed["split"]).origin_pathspec is None
    assert task.origin_pathspec is None
    assert resumed["start"].origin_pathspec == "F/r1/start"
