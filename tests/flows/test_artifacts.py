"""Artifacts in real runs: the cost of inheriting and joining them, and the choice of a join."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k8sflow.runtime.core import scheduler
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.objects import Buffer
from k8sflow.storage.records import Commit
from k8sflow.storage.tables import Tables
from tests.inprocess import Failed, run_source, runner_of
from tests.support import flow_command, latest, load_flow, run_flow, write_flow

WIDE = """
    VALUES, WIDTH, BYTES = 300, 300, 1550

    class F(FlowSpec):
        @step
        def start(self):
            for number in range(VALUES):
                setattr(self, f"v{number}", f"{number:05}" * (BYTES // 5))
            self.deleted = "x" * BYTES
            self.items = list(range(WIDTH))
            self.next(self.branch, foreach="items")
        @step
        def branch(self):
            self.result = self.input * 2
            self.v0 = f"mine {self.index}"
            del self.deleted
            self.next(self.join)
        @step
        def join(self, inputs):
            self.sums = sum(i.result for i in inputs), sum(i.input for i in inputs), inputs[7].v0, inputs[7].v9[:5]
            self.merge_artifacts(inputs, exclude=["result", "v0"])
            self.next(self.end)
        @step
        def end(self):
            self.seen = self.v299[:5], hasattr(self, "deleted"), hasattr(self, "v0")
"""


class CountingStore(MemoryStore):
    """A store that counts reads of each object, and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: dict[str, int] = {}
        self.written = 0

    def get(self, key: str) -> Buffer:
        self.reads[key] = self.reads.get(key, 0) + 1
        return super().get(key)

    def put(self, key: str, parts: Any) -> None:
        self.written += sum(len(part) for part in parts)
        super().put(key, parts)

    def put_new(self, key: str, data: bytes) -> bool:
        self.written += len(data)
        return super().put_new(key, data)


def test_small_values_do_not_grow_with_the_width(tmp_path: Path) -> None:
    """300 artifacts of 1.6 kB in 300 branches need at most four times their bytes, and 2 kB a task, and one read."""
    store = CountingStore()
    runner = runner_of(load_flow(write_flow(tmp_path, WIDE)), tmp_path, store=store)
    states = scheduler.Scheduler(runner.definition.graph, runner.record.run)
    ready = list(states.begin())
    while ready[0].name.step != "join":
        task = ready.pop(0)
        result = runner.execute(task)
        assert result.transition is not None
        ready += [task for group in states.finished(task.name, result.transition) for task in group]
    store.reads.clear()
    runner.execute(ready[0])
    assert store.written < 4 * 300 * 1600 + 302 * 2048
    commits = {key: count for key, count in store.reads.items() if key.endswith("commit.json")}
    assert commits.pop("F/runs/r1/tasks/start/0/commit.json") <= 2, "as the split, and as a layer"
    assert set(commits.values()) == {1}, "although the join goes over its inputs three times"
    assert sum(store.reads.values()) < 310
    commit = runner.run_store.read_commit("join", "0")
    assert commit is not None
    assert commit.layers == ("start/0",)
    saved = ArtifactStore(store, "F")
    refs = Tables(runner.run_store).table("join/0", commit).refs()
    assert saved.load(refs["sums"], "sums") == (89700, 44850, "mine 7", "00009")
    assert saved.load(refs["v299"], "v299")[:5] == "00299"
    assert {"deleted", "v0", "result"}.isdisjoint(refs)


def test_a_whole_run_of_many_small_values(tmp_path: Path) -> None:
    """The tasks are processes of their own; a reader sees all values, and `resume` and `spin` use them."""
    source = (
        WIDE.replace("300, 300, 1550", "300, 12, 1550")
        + """
            if os.environ.get("FAIL"):
                raise RuntimeError("not yet")
"""
    )
    file = write_flow(tmp_path, "    import os\n" + source)
    assert run_flow(file, FAIL="1").returncode == 1
    spun = flow_command(file, "spin", "join")
    assert spun.returncode == 0, spun.stdout + spun.stderr
    spun = flow_command(file, "spin", "branch/3")
    assert "mine 3" in spun.stdout
    assert "v9" not in spun.stdout, "it tells what the step has set"
    done = flow_command(file, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    run = latest(tmp_path)
    assert run.data.seen == ("00299", False, False)
    assert run["branch"].task.data.v17[:5] == "00017"
    assert run["branch"]["3"].data.v0 == "mine 3"
    assert "deleted" not in run["branch"]["3"]


CAUGHT = """
    from k8sflow import catch
    class F(FlowSpec):
        @step
        def start(self):
            for number in range(100):
                setattr(self, f"v{number}", f"{number:05}" * 300)
            self.items = list(range(5))
            self.next(self.branch, foreach="items")
        @catch(var="why")
        @step
        def branch(self):
            self.v1, self.note = "changed", "before"
            del self.v2
            if self.index:
                raise ValueError(self.index)
            self.next(self.join)
        @step
        def join(self, inputs):
            self.seen = [(i.v0[:5], i.v1, i.note, hasattr(i, "v2"), bool(getattr(i, "why", None))) for i in inputs]
            self.next(self.end)
        @step
        def end(self):
            pass
"""


def test_artifacts_of_a_caught_step_are_not_copied(tmp_path: Path) -> None:
    """Neither its inputs are, nor the artifacts that it sets for the steps after it."""
    file = write_flow(tmp_path, CAUGHT)
    done = run_flow(file)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = ("00000", "changed", "before", False)
    assert [found[:4] for found in latest(tmp_path)["join"].task.data.seen] == [expected] * 5
    assert [found[4] for found in latest(tmp_path)["join"].task.data.seen] == [False, True, True, True, True]
    for name in ("commit.json", "kept.json"):
        sizes = [file.stat().st_size for file in tmp_path.rglob(f"branch/*/**/{name}")]
        assert len(sizes) >= 4
        assert max(sizes) < 4096


def test_a_run_of_an_older_k8sflow_can_be_read_and_continued(tmp_path: Path) -> None:
    """Its commits list all artifacts of a task."""
    runner = runner_of(load_flow(write_flow(tmp_path, WIDE)), tmp_path)
    saved = ArtifactStore(runner.store, "F")
    refs = {f"v{number}": saved.save(f"{number:05}" * 300, "v") for number in range(300)}
    document = Commit(0, ("branch",), refs).to_document()
    assert document["format"] == 1
    commit = Commit.from_document(json.loads(json.dumps(document)))
    assert Tables(runner.run_store).table("start/0", commit).refs() == refs


MERGE = """
    import functools
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.preprocessing import StandardScaler

    class Squares:
        def __init__(self, numbers):
            self.numbers, self.memo = numbers, {}
        @functools.cached_property
        def results(self):
            return [number ** 2 for number in self.numbers]
        def lookup(self, number):
            return self.memo.setdefault(number, number ** 2)

    class F(FlowSpec):
        @step
        def start(self):
            data = np.arange(200.0).reshape(50, 4)
            self.model = RandomForestClassifier(3, random_state=0).fit(data, data[:, 0] > 40)
            self.scaler = StandardScaler().fit(data)
            self.frame = pd.DataFrame({"a": data[:, 0], "day": pd.date_range("2026-01-01", periods=50)})
            self.frame["late"] = 2 * self.frame["a"]
            self.frame = self.frame.set_index("day")
            self.squares = Squares([1, 2, 3])
            self.words = {"one", "two", "three"}
            self.items = [0, 1, 2, 3]
            self.next(self.branch, foreach="items")
        @step
        def branch(self):
            data = self.frame.to_numpy()
            if self.index == 0:
                self.seen = self.frame.iloc[0], list(self.frame.iterrows())[:1], self.frame.loc["2026-01-02"]
            if self.index in (1, 2):
                self.model, self.scaler.mean_, self.words
                self.squares.results
            %s
            self.next(self.join)
        @step
        def join(self, inputs):
            self.merge_artifacts(%s)
            self.next(self.end)
        @step
        def end(self):
            self.shown = self.squares.results, len(self.frame), sorted(self.words)
"""


def test_artifacts_that_branches_only_read_are_merged(tmp_path: Path) -> None:
    """Examples are models, frames, sets and cached properties; the value is that of the split."""
    run = run_source(tmp_path, MERGE % ("", "inputs, exclude=['seen']"))
    assert run.data.shown == ([1, 4, 9], 50, ["one", "three", "two"])
    assert {each.id: each.sha for each in run["join"].task} == {
        each.id: each.sha for each in run["start"].task if each.id != "seen"
    }


@pytest.mark.parametrize(
    "inputs",
    [
        "[i for i in inputs if i.index != 3]",
        "iter(inputs)",
        "tuple(inputs)",
        "(i for i in inputs)",
        "inputs[:2]",
        "{i.index: i for i in inputs}.values()",
        "reversed(list(inputs))",
    ],
)
def test_any_inputs_are_merged(tmp_path: Path, inputs: str) -> None:
    """Failed branches can be omitted."""
    run = run_source(tmp_path, MERGE % ("", f"{inputs}, exclude=['seen']"))
    assert run.data.shown == ([1, 4, 9], 50, ["one", "three", "two"])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("self.frame.iloc[0, 0] += self.index", "frame"),
        ("self.squares.numbers.append(self.index)", "squares"),
        ("self.squares.results.append(self.index)", "squares"),
        ("self.scaler.mean_[0] = self.index", "scaler"),
        ("self.words.add(self.index)", "words"),
        ("self.squares.lookup(self.index)", "squares"),
    ],
)
def test_an_artifact_that_a_branch_changed_is_a_conflict(tmp_path: Path, change: str, name: str) -> None:
    """The error has its name, and advice for an artifact that was only read."""
    with pytest.raises(Failed) as failed:
        run_source(tmp_path, MERGE % (change, "inputs, exclude=['seen']"))
    assert failed.value.result.failure is not None
    assert failed.value.result.failure.error_type.endswith("UnhandledInMergeArtifactsException")
    assert f"    {name}: " in failed.value.summary
    assert failed.value.summary.count("\n") == 1
    if name != "words":
        assert f"self.{name} = inputs[0].{name}" in failed.value.text


def test_a_step_that_only_reads_its_artifacts_writes_nothing(tmp_path: Path) -> None:
    """Models and frames are examples; results computed from them are new."""
    source = MERGE % ("", "inputs[:1], exclude=['seen']")
    run = run_source(tmp_path, source)
    blobs = {name: run["start"].task[name].sha for name in ("model", "scaler", "frame", "words")}
    for task in run["branch"]:
        assert {name: task[name].sha for name in blobs} == blobs


def test_errors_of_a_merge_are_caught_by_their_names(tmp_path: Path) -> None:
    """The first except clause doesn't catch both."""
    run = run_source(
        tmp_path,
        """
        from k8sflow.exception import MissingInMergeArtifactsException, UnhandledInMergeArtifactsException
        class F(FlowSpec):
            @step
            def start(self):
                self.next(self.a, self.b)
            @step
            def a(self):
                self.x = self.y = 1
                self.next(self.join)
            @step
            def b(self):
                self.x = self.y = 2
                self.next(self.join)
            @step
            def join(self, inputs):
                self.caught = []
                for include in ["nothing", "neither"], []:
                    try:
                        self.merge_artifacts(inputs, include=include)
                    except UnhandledInMergeArtifactsException as error:
                        self.caught.append(("unhandled", error.artifact_names))
                    except MissingInMergeArtifactsException as error:
                        self.caught.append(("missing", error.artifact_names))
                self.next(self.end)
            @step
            def end(self):
                pass
        """,
    )
    assert run.data.caught == [("missing", ["neither", "nothing"]), ("unhandled", ["x", "y"])]


def test_a_value_that_can_not_be_loaded_fails_where_it_is_set(tmp_path: Path) -> None:
    """The headline of a user's own error is shown too."""
    file = write_flow(
        tmp_path,
        """
        from k8sflow.exception import MetaflowException
        class Empty(MetaflowException):
            headline = "Nothing there"
        class ApiError(Exception):
            def __init__(self, status, *, detail):
                super().__init__(status)
        class F(FlowSpec):
            kind = Parameter("kind")
            @step
            def start(self):
                if self.kind == "own":
                    raise Empty("no rows in week 3")
                self.kept = {"error": ApiError(404, detail="missing")}
                self.next(self.end)
            @step
            def end(self):
                pass
        """,
    )
    done = run_flow(file, "--kind", "value")
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert "the artifact 'kept', a dict, can be pickled, but no later step could load it" in output
    assert "The class __main__.ApiError can't be rebuilt from its pickle" in output
    done = run_flow(file, "--kind", "own")
    assert "Nothing there: no rows in week 3" in done.stdout + done.stderr
