"""The values in the keys of ``@cache``, and what becomes of results whose run is being deleted."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.outcome import Outcome
from k8sflow.flow.problems import Location
from k8sflow.runtime.core.result_cache import ResultCache
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.cache_plan import CachePlan
from k8sflow.storage.encoding import encode
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.garbage import GarbageCollector
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import Commit, OutcomeRecord, RunRecord, dump
from k8sflow.storage.run_store import MARKS, RunStore
from k8sflow.storage.tables import Tables
from k8sflow.task.cached import Keys, Result, keep, plain
from k8sflow.task.inherited import inherited_by
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
GRAPH = Graph(
    "F",
    {
        "start": Node("start", Location(), Location(), next=("work",)),
        "work": Node("work", Location(), Location(), next=("end",), parents=("start",)),
        "end": Node("end", Location(), Location(), parents=("work",), is_end=True),
    },
)
PLAN = CachePlan({"code": "1"}, reads=("x",), own_modules=("helpers",), carried="2")


@given(_PLAIN, _PLAIN)
def test_plain_values_are_equal_if_their_pickles_say_so(one: Any, two: Any) -> None:
    """True and 1, or 0.0 and -0.0, are different values for a step."""
    is_same = encode(one, "x").blob == encode(two, "x").blob
    assert not is_same or plain(one) == plain(two)
    assert plain(one) != plain(two) or repr(one) == repr(two)


def test_a_set_has_one_form_and_an_object_has_none() -> None:
    assert plain({"b", "a"}) == plain({"a", "b"})
    with pytest.raises(TypeError):
        plain([Path("x")])


class Flow:
    """Runs of a flow whose step ``work`` has a cached result.

    Args:
        store: The store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.artifacts = ArtifactStore(store, "F")

    def start(self, run: str, plan: CachePlan = PLAN, **artifacts: Any) -> Keys:
        """Create a run whose first step has left artifacts."""
        run_store = RunStore(self.store, "F", run)
        record = RunRecord("F", run, "flow.py", {}, GRAPH, cache={"work": plan})
        run_store.create(record)
        refs = {name: self.artifacts.save(value, name) for name, value in artifacts.items()}
        run_store.commit("start", "0", Commit(0, ("work",), refs, started=1.0, finished=2.0))
        return Keys(record, run_store, GRAPH)

    def spec(self, keys: Keys) -> TaskSpec:
        return TaskSpec("F", keys.record.run, TaskName("work"), inputs=(TaskInput("start", ()),))

    def work(self, keys: Keys, plan: CachePlan = PLAN, **artifacts: Any) -> None:
        """Run the step ``work``, which leaves these artifacts and those that it has inherited."""
        spec = self.spec(keys)
        inherited = inherited_by(GRAPH, keys.run_store, spec)
        left = inherited.artifacts() | {name: self.artifacts.save(value, name) for name, value in artifacts.items()}
        commit = Commit(0, ("end",), left, started=3.0, finished=4.0)
        keys.run_store.commit("work", "0", commit)
        keep(keys, plan, spec, Result(inherited, commit, left))

    def take(self, keys: Keys) -> bool:
        """Return if a result was taken for the step ``work``."""
        ((taken, rest),) = ResultCache(keys, None).take([self.spec(keys)])
        assert len(taken) + len(rest) == 1
        return bool(taken)

    def left(self, keys: Keys) -> dict[str, Any]:
        """Return the artifacts of the step ``work``."""
        commit = keys.run_store.read_commit("work", "0")
        assert commit is not None
        table = Tables(keys.run_store).table("work/0", commit)
        return {name: self.artifacts.load(ref, name) for name, ref in table.refs().items()}


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(FolderStore(str(tmp_path)))


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Flow:
    if request.param == "folder":
        return Flow(FolderStore(str(tmp_path)))
    return Flow(request.getfixturevalue("s3_store"))


def test_a_result_is_taken_and_inherited_artifacts_are_those_of_the_run(anywhere: Flow) -> None:
    """Artifacts that the step doesn't read are passed on as they are in this run."""
    flow = anywhere
    flow.work(flow.start("one", x=1, other="a", large="b" * 5000), y=2)
    two = flow.start("two", x=1, other="c", large="d" * 5000)
    assert flow.take(two)
    assert flow.left(two) == {"x": 1, "other": "c", "large": "d" * 5000, "y": 2}
    commit = two.run_store.read_commit("work", "0")
    assert commit is not None
    assert (commit.origin, commit.cached) == ("F/one", "work/0")
    assert not flow.take(flow.start("three", x=2))


def test_no_result_is_taken_of_a_run_that_is_being_deleted(anywhere: Flow) -> None:
    """The gc may have read all references before this run wrote its own."""
    flow = anywhere
    flow.work(flow.start("one", x=1), y="v" * 5000)
    flow.store.put(f"F/runs/one/{MARKS}gc.json", [dump({})])
    two = flow.start("two", x=1)
    assert not flow.take(two)
    assert two.run_store.read_commit("work", "0") is None
    flow.store.delete([f"F/runs/one/{MARKS}gc.json"])
    assert flow.take(two)


class Killed(BaseException):
    """Ends a driver as SIGKILL does: nothing catches it."""


def _watched(folder: Path, before: Callable[[int], None]) -> FolderStore:
    """Open a store that calls something before each operation, with its number."""
    store, count = FolderStore(str(folder)), itertools.count()

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            before(next(count))
            return method(*arguments)

        return call

    for name in ("get", "put", "put_new", "exists", "list_keys", "list_objects", "list_folders", "delete", "age"):
        setattr(store, name, watched(getattr(store, name)))
    return store


class Race:
    """A run that takes a result while a gc deletes the run that has made it.

    Args:
        folder: The folder of the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flow = Flow(FolderStore(str(folder)))
        self.flow.work(self.flow.start("one", x=1), y="v" * 5000)
        RunStore(self.flow.store, "F", "one").write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, 1e9))
        for path in folder.rglob("*"):
            os.utime(path, (1e9, 1e9))  # or no gc would delete the blobs
        self.flow.start("two", x=1)

    def take(self, before: Callable[[int], None]) -> None:
        """Take the result, unless the driver is killed."""
        driver = Flow(_watched(self.folder, before))
        run = RunStore(driver.store, "F", "two")
        with contextlib.suppress(Killed):
            driver.take(Keys(run.read(), run, GRAPH))

    def gc(self, before: Callable[[int], None]) -> None:
        """Delete the run that has made the result."""
        store = _watched(self.folder, before)
        select = lambda found: [each for each in found if each.run_store.run == "one"]  # noqa: E731
        GarbageCollector(store, "F", select, lambda *_: frozenset(), is_dry_run=False).collect()

    def check(self) -> bool:
        """Return if the run has a result, and check that it is whole."""
        run = RunStore(self.flow.store, "F", "two")
        if (commit := run.read_commit("work", "0")) is None:
            return False
        refs = Tables(run).table("work/0", commit).refs()
        return bool(self.flow.artifacts.load(refs["y"], "y") == "v" * 5000)


def _operations(folder: Path) -> tuple[int, int]:
    """Count what a driver that takes a result, and a gc, do with the store."""
    taken, deleted = [0], [0]
    race = Race(folder)
    race.take(taken.append)
    assert race.check()
    race.gc(deleted.append)
    assert race.check()
    assert not list(race.flow.store.list_keys("F/runs/one/"))
    return taken[-1] + 1, deleted[-1] + 1


def _kill_at(moment: int, number: int) -> None:
    if number == moment:
        raise Killed


@pytest.mark.slow
def test_a_driver_that_is_killed_during_a_gc_leaves_no_result_without_its_values(tmp_path: Path) -> None:
    """At each operation on the store, while the gc is at each of its own; or it survives."""
    steps, moments = _operations(tmp_path / "whole")
    found: Counter[bool] = Counter()
    for moment in range(moments):
        for step in range(steps + 1):
            race = Race(tmp_path / f"{moment}-{step}")
            race.gc(lambda number, r=race, m=moment, s=step: r.take(partial(_kill_at, s)) if number == m else None)
            found[race.check()] += 1
            shutil.rmtree(race.folder)
    assert set(found) == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("survives", [True, False])
def test_a_gc_that_is_faster_than_a_driver_leaves_no_result_without_its_values(tmp_path: Path, survives: bool) -> None:
    """All of the gc happens before an operation of the driver, which is killed there or later, or survives."""
    steps, _ = _operations(tmp_path / "whole")
    for step in range(steps):
        for death in range(step, steps + 1) if not survives else [steps + 1]:
            race = Race(tmp_path / f"{step}-{death}")

            def before(number: int, race: Race = race, step: int = step, death: int = death) -> None:
                if number == step:
                    race.gc(lambda _: None)
                _kill_at(death, number)

            race.take(before)
            race.check()
            race.gc(lambda _: None)  # the next one
            race.check()
            shutil.rmtree(race.folder)


def test_an_ignored_artifact_that_the_step_sets_has_the_cached_value(flow: Flow) -> None:
    """Although it had that value before in the run that made the result."""
    plan = replace(PLAN, ignore=("x",), sets=("x",))
    flow.work(flow.start("one", plan, x=1), plan, x=1)
    two = flow.start("two", plan, x=5)
    assert flow.take(two)
    assert flow.left(two)["x"] == 1


@pytest.mark.parametrize(
    ("value", "counts"), [({"a": [1, 2]}, False), (b"x" * 2_000_000, False), ([0] * 2_000_000, True)]
)
def test_code_that_a_value_may_bring_counts(flow: Flow, value: Any, counts: bool) -> None:
    """A large list is not searched for objects."""
    flow.work(flow.start("one", x=value))
    two = flow.start("two", replace(PLAN, carried="3"), x=value)
    assert flow.take(two) is not counts


def test_a_result_that_leads_where_this_run_cannot_go_is_a_miss(flow: Flow) -> None:
    """A damaged entry, or a foreach that is too wide for this run."""
    flow.work(flow.start("one", x=1), y=2)
    for key in list(flow.store.list_keys("F/cache/")):
        flow.store.put(key, [bytes(flow.store.get(key)).replace(b'"end"', b'"elsewhere"')])
    assert not flow.take(flow.start("two", x=1))
