"""A run taken over from a driver that died, against an executor that does what a test says (I5)."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.policy import RetryPolicy, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.records import Commit, ForeachItems, OutcomeRecord
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import write_outcome
from tests.support import load_flow, write_flow
from tests.unit.flow.graphs import SEQUENCES, Foreach, Part, Plain
from tests.unit.runtime.core.driver_world import DriverKilled, World, failure, graph_of


def _deaths(graph: Graph, folder: Path, widths: Sequence[int], order: random.Random) -> Iterator[int]:
    """The changes of state of a whole run: at each of them its driver may die."""
    world = World(graph, folder, widths, order)
    world.changes_left = 10**9
    assert world.drive().is_success
    yield from range(10**9 - world.changes_left)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 10**6))
def test_a_run_continues_from_any_moment_without_running_a_committed_task_again(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], widths: list[int], seed: int
) -> None:
    """Each driver dies one change of state later than the one before it; together they finish the run (I5)."""
    graph = graph_of(*parts)
    limit = seed % 3 or None
    world = World(graph, tmp_path_factory.mktemp("run"), widths, random.Random(seed), limit=limit)
    for moment in range(10**6):
        world.changes_left = moment
        try:
            assert world.drive(take_over=moment > 0).is_success
        except DriverKilled:
            continue
        break
    assert set(world.ran.values()) == {1}, "World.run asserts that no task commits twice"
    assert world.ran[TaskName("end")] == 1


@settings(max_examples=10, deadline=None)
@given(SEQUENCES, st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 10**6), st.data())
def test_a_run_may_die_once_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory,
    parts: tuple[Part, ...],
    widths: list[int],
    seed: int,
    data: st.DataObject,
) -> None:
    """And the second driver finishes it, running exactly the rest."""
    graph = graph_of(*parts)
    moments = len(list(_deaths(graph, tmp_path_factory.mktemp("whole"), widths, random.Random(seed))))
    world = World(graph, tmp_path_factory.mktemp("run"), widths, random.Random(seed))
    world.changes_left = data.draw(st.integers(0, moments - 1))
    with pytest.raises(DriverKilled):
        world.drive()
    before = set(world.ran)
    world.changes_left = -1
    world.attempts.clear()
    world.submitted_names.clear()
    assert world.drive(take_over=True).is_success
    assert not before & {spec.name for spec in world.attempts}
    assert set(world.ran.values()) == {1}
    observed = [*world.submitted_names, *(spec.name for spec in world.before)]
    assert sorted(map(str, observed)) == sorted(map(str, world.ran)), "an observer hears of each task, once"


def test_a_finished_run_is_taken_over_at_once(tmp_path: Path) -> None:
    """Nothing is left to do."""
    world = World(graph_of(Foreach((Plain(),))), tmp_path)
    assert world.drive().is_success
    world.attempts.clear()
    assert world.drive(take_over=True).is_success
    assert world.attempts == []


@settings(max_examples=25, deadline=None)
@given(SEQUENCES, st.integers(0, 10**6), st.integers(0, 2))
def test_a_driver_that_dies_counts_the_retries_of_those_before_it(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], seed: int, failures: int
) -> None:
    """Whenever drivers die, no execution is run twice under one name, and none more than the budget allows (I5)."""
    graph = graph_of(*parts)
    world = World(graph, tmp_path_factory.mktemp("run"), (2,), random.Random(seed))
    world.policies = {step: StepPolicy(RetryPolicy(failures, pause_seconds=5)) for step in graph.nodes}
    ended: Counter[TaskSpec] = Counter()

    def behave(spec: TaskSpec) -> TaskResult | None:
        if spec.attempt >= failures:
            return None
        ended[spec] += 1
        result = failure(Outcome.USER_ERROR)
        write_outcome(world.run_store, spec, result)
        return result

    world.behave = behave
    for moment in itertools.count():
        world.changes_left = moment
        try:
            assert world.drive(take_over=moment > 0).is_success
        except DriverKilled:
            continue
        break
    assert set(world.ran.values()) == {1}
    assert set(ended.values()) <= {1}
    assert sum(ended.values()) == failures * len(world.ran)


@pytest.mark.parametrize(
    ("outlives", "ended", "started", "attempts"),
    [
        (False, [], [0], [1]),
        (False, [], [0, 1, 2], [3]),
        (False, [0], [1], [2]),
        (False, [0], [0], [1]),
        (True, [], [0], [0]),
        (True, [0], [1], [1]),
    ],
)
def test_an_execution_that_died_with_its_driver_has_a_number_of_its_own(
    tmp_path: Path, outlives: bool, ended: list[int], started: list[int], attempts: list[int]
) -> None:
    """The next one has another; one that runs on without its driver is found again under its own (I5)."""
    world = World(graph_of(Plain()), tmp_path)
    world.outlives = outlives
    world.policies = {"s1": StepPolicy(RetryPolicy(1))}
    for attempt in started:
        log = world.run_store.open_log("s1", "0", attempt, "stdout")
        log.write(b"")
        log.close()
    for attempt in ended:
        spec = TaskSpec("F", "r", TaskName("s1"), attempt)
        write_outcome(world.run_store, spec, failure(Outcome.USER_ERROR))
    assert world.drive(take_over=True).is_success
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == attempts


# Three processes that know each other.
TOGETHER = """
    from k8sflow import parallel
    class F(FlowSpec):
        @step
        def start(self): self.next(self.train, num_parallel=3)
        @parallel
        @step
        def train(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""


def test_processes_that_know_each_other_start_again_together(tmp_path: Path) -> None:
    """After their driver's death, the one that has a result already too: the others would wait for it for ever."""
    world = World(compile_flow(load_flow(write_flow(tmp_path, TOGETHER))).graph, tmp_path / "store")
    world.outlives = False
    world.run_store.commit("start", "0", Commit(0, ("train",), {}, foreach=ForeachItems(3, ())))
    world.run_store.commit("train", "1", Commit(0, ("join",), {}))
    log = world.run_store.open_log("train", "2", 0, "stdout")
    log.write(b"")
    log.close()
    world.behave = lambda spec: (
        TaskResult(Outcome.SUCCEEDED, Transition(("join",))) if spec.name == TaskName("train", (1,)) else None
    )
    assert world.drive(take_over=True).is_success
    together = [(spec.name.id, spec.attempt) for spec in world.attempts if spec.name.step == "train"]
    assert sorted(together) == [("0", 1), ("1", 1), ("2", 1)]
    assert {spec.nodes for spec in world.attempts if spec.name.step == "train"} == {3}


def test_processes_that_know_each_other_fail_once(tmp_path: Path) -> None:
    """However many of them were ended for one; a driver that dies hands on the count, and @retry pays once for each."""
    world = World(compile_flow(load_flow(write_flow(tmp_path, TOGETHER))).graph, tmp_path / "store")
    world.outlives = False
    world.policies = {"train": StepPolicy(RetryPolicy(2))}
    world.run_store.commit("start", "0", Commit(0, ("train",), {}, foreach=ForeachItems(3, ())))
    for task, outcome in (("0", Outcome.CANCELLED), ("1", Outcome.USER_ERROR), ("2", Outcome.CANCELLED)):
        world.run_store.write_outcome("train", task, 0, OutcomeRecord(outcome, world.time))
    world.behave = lambda spec: (
        TaskResult(Outcome.USER_ERROR if spec.name.path == (2,) else Outcome.CANCELLED)
        if spec.name.step == "train"
        else None
    )
    done = world.drive(take_over=True)
    assert done.failed is not None
    assert (str(done.failed.name), done.failed.attempt) == ("train/2", 2)
    assert sorted((spec.name.id, spec.attempt) for spec in world.attempts) == [(i, n) for i in "012" for n in (1, 2)]


@pytest.mark.parametrize(
    ("ends", "attempt"),
    [
        ({}, 1),
        ({("0", 1): Outcome.SUCCEEDED}, 1),
        ({("0", 1): Outcome.NODE_LOST, ("1", 1): Outcome.CANCELLED}, 2),
        ({("0", 1): Outcome.CANCELLED, ("1", 1): Outcome.CANCELLED}, 2),
    ],
)
def test_processes_that_outlive_their_driver_are_taken_up(
    tmp_path: Path, ends: dict[tuple[str, int], Outcome], attempt: int
) -> None:
    """In pods they may still run as their last execution, unless one of them has failed in it."""
    world = World(compile_flow(load_flow(write_flow(tmp_path, TOGETHER))).graph, tmp_path / "store")
    world.run_store.commit("start", "0", Commit(0, ("train",), {}, foreach=ForeachItems(3, ())))
    log = world.run_store.open_log("train", "2", 1, "stdout")
    log.write(b"x")
    log.close()
    for (task, number), outcome in {("1", 0): Outcome.EVICTED, **ends}.items():
        world.run_store.write_outcome("train", task, number, OutcomeRecord(outcome, world.time))
    assert world.drive(take_over=True).is_success
    together = [(spec.name.id, spec.attempt) for spec in world.attempts if spec.name.step == "train"]
    assert sorted(together) == [(task, attempt) for task in "012"]
