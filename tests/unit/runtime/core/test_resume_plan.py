"""The results that a resumed run takes over: all that are still valid, and none after a task that runs again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sflow.flow.compile import compile_flow
from k8sflow.flow.graph import Graph
from k8sflow.runtime.core.resume_plan import ResumePlan, plan
from k8sflow.runtime.core.scheduler import Scheduler
from k8sflow.storage.clones import RawCommit
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import Commit, ForeachItems
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import Transition
from k8sflow.task.spec import TaskName
from tests.support import load_flow, write_flow
from tests.unit.flow.graphs import SEQUENCES, Part
from tests.unit.runtime.core.driver_world import World, graph_of


def _names(found: ResumePlan) -> tuple[set[str], dict[str, str | None]]:
    return {str(k.name) for k in found.kept}, {str(r.task.name): r.why for r in found.reruns}


def _as_planned(run_store: RunStore, graph: Graph, kept: set[str]) -> set[str]:
    """The tasks that become ready, and are not kept, where those that are kept have finished."""
    scheduler, rest = Scheduler(graph, "r"), set()
    ready = list(scheduler.begin())
    while ready:
        task = ready.pop()
        commit = run_store.read_commit(task.name.step, task.name.id)
        if str(task.name) not in kept or commit is None:
            rest.add(str(task.name))
            continue
        width = None if commit.foreach is None else commit.foreach.width
        for group in scheduler.finished(task.name, Transition(commit.steps, width)):
            ready += group
    return rest


@settings(max_examples=60, deadline=None)
@given(
    SEQUENCES,
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
    st.floats(0, 0.5),
)
def test_what_is_there_is_kept_up_to_what_is_not(
    tmp_path_factory: pytest.TempPathFactory,
    parts: tuple[Part, ...],
    widths: list[int],
    order: random.Random,
    share: float,
) -> None:
    """Whatever results are missing, be it in the midst of others: each is run again, with all that comes after it."""
    graph = graph_of(*parts)
    world = World(graph, tmp_path_factory.mktemp("run"), widths, order, limit=order.choice([None, 1, 2]))
    assert world.drive().is_success
    root = Path(world.run_store.store.url)
    lost = {name for name in world.ran if order.random() < share}
    for name in lost:
        (root / world.run_store.task_key(name.step, name.id, "commit.json")).unlink()
    found = plan(world.run_store, graph, graph, lambda _: False)
    kept, reruns = _names(found)
    assert set(reruns) == _as_planned(world.run_store, graph, kept)
    assert set(reruns.values()) <= {None}
    assert set(reruns) <= set(map(str, lost))
    assert (not reruns) == (not lost)
    assert len(found.kept) == len(kept)
    # A task that is neither kept nor a start comes after one that runs again: it is reached from there alone.
    assert kept | set(reruns) <= set(map(str, world.ran))


@settings(max_examples=30, deadline=None)
@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=4), st.data())
def test_from_a_step_on_all_runs_again(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], widths: list[int], data: st.DataObject
) -> None:
    """And what is beside it or before it is kept."""
    graph = graph_of(*parts)
    world = World(graph, tmp_path_factory.mktemp("run"), widths)
    assert world.drive().is_success
    step = data.draw(st.sampled_from(sorted({name.step for name in world.ran})))
    kept, reruns = _names(plan(world.run_store, graph, graph, lambda name: name.step == step))
    after = _after(graph, step)
    assert reruns
    assert set(reruns.values()) == {"as you asked"}
    assert kept >= {str(name) for name in world.ran if name.step not in after}
    assert not any(name.partition("/")[0] == step for name in kept)


def _after(graph: Graph, step: str) -> set[str]:
    found, waiting = {step}, [step]
    while waiting:
        for following in set(graph[waiting.pop()].next) - found:
            found.add(following)
            waiting.append(following)
    return found


def _flow(folder: Path, *steps: str, name: str, above: dict[str, str] | None = None) -> Graph:
    source = "from k8sflow import parallel\nclass F(FlowSpec):\n    items = way = property(id)\n"
    for step in steps:
        source += f"    {(above or {}).get(step.partition('(')[0], '')}\n    @step\n    def {step}\n"
    return compile_flow(load_flow(write_flow(folder, source, name))).graph


STEPS = (
    "start(self): self.items = [1, 2]; self.next(self.a, self.b)",
    "a(self): self.next(self.work, foreach='items')",
    "work(self): self.next(self.collect)",
    "collect(self, inputs): self.next(self.meet)",
    "b(self): self.next({'x': self.c, 'y': self.d}, condition='way')",
    "c(self): self.next(self.e)",
    "d(self): self.next(self.e)",
    "e(self): self.next(self.meet)",
    "meet(self, inputs): self.next(self.end)",
    "end(self): pass",
)
ALL = {"start/0", "a/0", "work/0", "work/1", "collect/0", "b/0", "c/0", "e/0", "meet/0", "end/0"}


def _change(old: str, new: str, *more: str) -> Sequence[str]:
    assert any(old in step for step in STEPS)
    return [step.replace(old, new) for step in STEPS if new or old not in step] + list(more)


@pytest.mark.parametrize(
    ("steps", "lost", "reruns"),
    [
        (STEPS, set(), {}),
        # a step after another one: what it follows is kept, and leads to it
        (_change("work(self): self.next(self.collect)", "work(self): self.next(self.more)",
                 "more(self): self.next(self.collect)"),
         {"collect/0", "meet/0", "end/0"}, {"more/0": None, "more/1": None}),
        # a step that is no more
        ([s.replace("self.e)", "self.meet)") for s in STEPS if not s.startswith("e(")], {"e/0", "meet/0", "end/0"},
         {"meet/0": "it comes after other steps than before"}),
        # a step under another name
        ([s.replace("work", "labour") for s in STEPS], {"work/0", "work/1", "collect/0", "meet/0", "end/0"},
         {"labour/0": None, "labour/1": None}),
        # another foreach
        (_change("foreach='items'", "foreach='others'"), {"a/0", "work/0", "work/1", "collect/0", "meet/0", "end/0"},
         {"a/0": "it opens other branches than before"}),
        # no foreach any more
        ([s.replace(", foreach='items'", "").replace("collect(self, inputs)", "collect(self)") for s in STEPS],
         {"a/0", "work/0", "work/1", "collect/0", "meet/0", "end/0"}, {"a/0": "it opens other branches than before"}),
        # a case that leads elsewhere
        (_change("'x': self.c, 'y': self.d", "'y': self.c, 'x': self.d"), {"b/0", "c/0", "e/0", "meet/0", "end/0"},
         {"b/0": "its switch has changed"}),
        # one more branch: those that are there are kept, however the order is now
        (_change("self.next(self.a, self.b)", "self.next(self.new, self.b, self.a)", "new(self): self.next(self.meet)"),
         {"meet/0", "end/0"}, {"new/0": None}),
        # the same steps in another order of the source
        (STEPS[::-1], set(), {}),
    ],
)  # fmt: skip
def test_a_changed_graph(tmp_path: Path, steps: Sequence[str], lost: set[str], reruns: dict[str, str | None]) -> None:
    """Results that the new code would repeat are kept; the others are listed with the reason."""
    before = _flow(tmp_path, *STEPS, name="before.py")
    origin = _origin(tmp_path, before)
    kept, found = _names(plan(origin, before, _flow(tmp_path, *steps, name="after.py"), lambda _: False))
    assert kept == ALL - lost
    assert found == reruns


def _origin(folder: Path, graph: Graph) -> RunStore:
    """A run of the graph that took the way of c, with all its commits."""
    origin = RunStore(FolderStore(str(folder / "store")), "F", "r")
    for name in ALL:
        step, task = name.split("/")
        steps = ("c",) if step == "b" else graph[step].next
        foreach = ForeachItems(2, ()) if graph[step].foreach else None
        assert origin.commit(step, task, Commit(0, steps, {}, foreach=foreach))
    return origin


def test_a_new_step_with_an_old_name_is_a_new_step(tmp_path: Path) -> None:
    """In a foreach now, where it was not in one: its first branch has the id that its only task had."""
    before = _flow(
        tmp_path,
        "start(self): self.items = [1]; self.next(self.a)",
        "a(self): self.next(self.b, foreach='items')",
        "b(self): self.next(self.j)",
        "j(self, inputs): self.next(self.end)",
        "end(self): pass",
        name="before.py",
    )
    after = _flow(
        tmp_path,
        "start(self): self.items = [1]; self.next(self.a, foreach='items')",
        "a(self): self.next(self.b)",
        "b(self): self.next(self.j)",
        "j(self, inputs): self.next(self.end)",
        "end(self): pass",
        name="after.py",
    )
    origin = RunStore(FolderStore(str(tmp_path / "store")), "F", "r")
    for step in ("start", "a", "b", "j", "end"):
        foreach = ForeachItems(1, ()) if step == "a" else None
        origin.commit(step, "0", Commit(0, before[step].next, {}, foreach=foreach))
    kept, reruns = _names(plan(origin, before, after, lambda _: False))
    assert (kept, reruns) == (set(), {"start/0": "it opens other branches than before"})


def test_processes_that_know_each_other_run_again_together(tmp_path: Path) -> None:
    """One of them alone would wait for the others for ever."""
    graph = _flow(
        tmp_path,
        "start(self): self.next(self.train, num_parallel=3)",
        "train(self): self.next(self.join)",
        "join(self, inputs): self.next(self.end)",
        "end(self): pass",
        name="parallel.py",
        above={"train": "@parallel"},
    )
    origin = RunStore(FolderStore(str(tmp_path / "store")), "F", "r")
    origin.commit("start", "0", Commit(0, ("train",), {}, foreach=ForeachItems(3, ())))
    origin.commit("train", "1", Commit(0, ("join",), {}))
    kept, reruns = _names(plan(origin, graph, graph, lambda _: False))
    assert kept == {"start/0"}
    assert set(reruns) == {"train/0", "train/1", "train/2"}
    assert reruns["train/1"] == "the processes of a num_parallel step run together"


def test_a_clone_says_where_its_task_ran() -> None:
    """The first origin stays, however often it is taken over; nothing else of the bytes changes."""
    data = (
        b'{"format":1,"attempt":2,"steps":["a"],"artifacts":{"x":{"blob":"\\u00e9"}},"foreach":null,'
        b'"started":1.0,"finished":2.0}'
    )
    once = RawCommit.of(data, json.loads(data)).clone("F/1", ("a",))
    assert json.loads(once) == {**json.loads(data), "origin": "F/1"}
    again = RawCommit.of(once, json.loads(once))
    assert again.is_clone
    assert again.clone("F/2", ("a",)) == once
    assert json.loads(again.clone("F/2", ("b", "c"))) == {**json.loads(once), "steps": ["b", "c"]}


@pytest.mark.parametrize(("step", "task", "depth"), [("a", "0", 0), ("a", "0-2", 0), ("a", "0", 1), ("a", "3.1-12", 2)])
def test_a_tasks_name_follows_from_its_id(step: str, task: str, depth: int) -> None:
    """And from how deep its step is."""
    name = TaskName.from_id(step, task, depth)
    assert name.id == task
    assert len(name.path) == depth


@pytest.mark.parametrize(("task", "depth"), [("", 0), ("1", 0), ("0.0", 1), ("x", 1), ("1-0", 1), ("01", 1), ("1-", 1)])
def test_an_invalid_id_is_refused(task: str, depth: int) -> None:
    """With the one error."""
    with pytest.raises(ValueError, match=r"."):
        TaskName.from_id("a", task, depth)
