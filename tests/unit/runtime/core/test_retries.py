"""Retries, @catch and raised memory: the decision after a failure, in whole runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from k8sflow.flow.decorators.policy import Catch, InfrastructureRetry, RetryPolicy, StepPolicy
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.records import OutcomeRecord
from k8sflow.task.result import Failure, TaskResult, failed
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.flow.graphs import Plain, Split
from tests.unit.runtime.core.driver_world import World, failure, graph_of


def test_a_user_retry_waits_without_holding_a_worker(tmp_path: Path) -> None:
    """In virtual time: each pause is longer than the one before, up to the longest; attempts count up."""
    world = World(graph_of(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(RetryPolicy(4, pause_seconds=60, backoff=3, longest_pause_seconds=400))}
    world.behave = lambda spec: failure(Outcome.USER_ERROR) if spec.name.step == "s1" and spec.attempt < 4 else None
    assert world.drive().is_success
    begins = [moment for moment, spec in world.started if spec.name.step == "s1"]
    assert [after - before for before, after in itertools.pairwise(begins)] == [60, 180, 400, 400]
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == [0, 1, 2, 3, 4]
    assert len(world.retries) == 4


@pytest.mark.parametrize(
    ("outcomes", "on", "times", "attempts"),
    [
        ("uuu", "uto", 2, 3),
        ("uto", "uto", 2, 3),
        ("nun", "uto", 0, 2),
        ("nnnn", "uto", 5, 4),
        ("nunun", "uto", 2, 6),
        ("o", "u", 5, 1),
        ("uo", "u", 5, 2),
        ("tto", "to", 5, 4),
        ("b", "uto", 5, 1),
    ],
)
def test_the_users_budget_pays_for_code_alone(
    tmp_path: Path, outcomes: str, on: str, times: int, attempts: int
) -> None:
    """Failures of the infrastructure have one of their own, whatever came before."""
    kinds = {
        "u": Outcome.USER_ERROR,
        "t": Outcome.TIMED_OUT,
        "o": Outcome.OUT_OF_MEMORY,
        "n": Outcome.NODE_LOST,
        "b": Outcome.BAD_IMAGE,
    }
    world = World(graph_of(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(RetryPolicy(times, on=tuple(kinds[kind].value for kind in on)))}

    def behave(spec: TaskSpec) -> TaskResult | None:
        if spec.name.step != "s1" or spec.attempt >= len(outcomes):
            return None
        return failure(kinds[outcomes[spec.attempt]])

    world.behave = behave
    world.drive()
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == list(range(attempts))


def test_catch_lets_the_run_go_on_after_the_last_retry(tmp_path: Path) -> None:
    """With the exception in the artifact, what the step before left, and the step's only transition."""
    world = World(graph_of(Plain(), Split(((), ()))), tmp_path)
    world.policies = {"s1": StepPolicy(RetryPolicy(1), catch=Catch("failed"))}
    found = Failure("ValueError: no", "Traceback …: no", error_type="builtins.ValueError")
    world.behave = lambda spec: TaskResult(Outcome.USER_ERROR, failure=found) if spec.name.step == "s1" else None
    assert world.drive().is_success
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == [0, 1]
    assert [task.name for task in world.catches] == [TaskName("s1")]
    commit = world.run_store.read_commit("s1", "0")
    assert commit is not None
    assert commit.attempt == 1
    assert commit.steps == world.graph["s1"].next
    caught = ArtifactStore(world.run_store.store, "F").load(commit.artifacts["failed"], "failed")
    assert (caught.type, caught.exception, caught.stacktrace) == ("builtins.ValueError", "no", "Traceback …: no")
    assert str(caught) == "Traceback …: no"


def test_catch_is_for_the_code_and_not_for_the_cluster(tmp_path: Path) -> None:
    """An image that can't be pulled is an error to report."""
    world = World(graph_of(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(catch=Catch("failed"))}
    world.behave = lambda spec: failure(Outcome.BAD_IMAGE) if spec.name.step == "s1" else None
    assert not world.drive().is_success


def test_infrastructure_reruns_back_off(tmp_path: Path) -> None:
    """Seconds, then minutes: what takes pods away or refuses them lasts."""
    world = World(graph_of(Plain()), tmp_path)
    world.behave = lambda spec: failure(Outcome.NODE_LOST) if spec.name.step == "s1" else None
    world.drive()
    times = [at for at, spec in world.started if spec.name.step == "s1"]
    assert [after - before for before, after in itertools.pairwise(times)] == [2.0, 20.0, 120.0]


def test_the_settings_say_how_often_and_after_which_pauses(tmp_path: Path) -> None:
    """The last pause is repeated."""
    world = World(graph_of(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(infrastructure=InfrastructureRetry(4, (1.0, 5.0)))}
    world.behave = lambda spec: failure(Outcome.EVICTED) if spec.name.step == "s1" else None
    assert not world.drive().is_success
    times = [at for at, spec in world.started if spec.name.step == "s1"]
    assert [after - before for before, after in itertools.pairwise(times)] == [1.0, 5.0, 5.0, 5.0]


def _memory_of(world: World, step: str) -> list[tuple[int, str]]:
    return [(spec.attempt, spec.memory) for spec in world.attempts if spec.name.step == step]


def test_a_task_that_ran_out_of_memory_gets_more_until_the_maximum(tmp_path: Path) -> None:
    """This costs no retry; the user's retries come after it, and the last words name the option to change."""
    world = World(graph_of(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(RetryPolicy(1), more_memory=("400M", "500M"))}
    world.behave = lambda spec: failure(Outcome.OUT_OF_MEMORY) if spec.name.step == "s1" else None
    result = world.drive().result
    assert _memory_of(world, "s1") == [(0, ""), (1, "400M"), (2, "500M"), (3, "500M")]
    assert [(again.number, again.memory) for again in world.decisions] == [(None, "400M"), (None, "500M"), (1, "")]
    assert result is not None
    assert "It had 500M" in result.explained.resolution
    assert "max_memory" in result.explained.resolution


def test_the_memory_stays_raised_after_other_failures(tmp_path: Path) -> None:
    """An eviction and an error of the user's don't take it back, nor do they raise it."""
    ends = [Outcome.OUT_OF_MEMORY, Outcome.EVICTED, Outcome.USER_ERROR]
    world = World(graph_of(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(RetryPolicy(1), more_memory=("2Gi", "4Gi"))}
    world.behave = lambda spec: (
        failure(ends[spec.attempt]) if spec.name.step == "s1" and spec.attempt < len(ends) else None
    )
    assert world.drive().is_success
    assert _memory_of(world, "s1") == [(0, ""), (1, "2Gi"), (2, "2Gi"), (3, "2Gi")]


def test_the_next_driver_asks_for_the_raised_memory(tmp_path: Path) -> None:
    """It follows from the recorded outcomes alone."""
    world = World(graph_of(Plain()), tmp_path)
    world.policies = {"s1": StepPolicy(more_memory=("2Gi", "4Gi"))}
    for attempt in (0, 1):
        world.run_store.write_outcome("s1", "0", attempt, OutcomeRecord(Outcome.OUT_OF_MEMORY, world.time))
    assert world.drive(take_over=True).is_success
    assert _memory_of(world, "s1") == [(2, "4Gi")]
    record = world.run_store.read_outcome("s1", "0", 1)
    assert record is not None


@pytest.mark.parametrize("outcome", [Outcome.NEVER_STARTED, Outcome.STORAGE_ERROR])
def test_what_would_fail_again_in_the_same_way_is_not_tried_again(tmp_path: Path, outcome: Outcome) -> None:
    """A Job that the API server forbids, or an object that is damaged."""
    world = World(graph_of(Plain()), tmp_path)
    final = failed(outcome, "refused", is_final=True)
    world.behave = lambda spec: final if spec.name.step == "s1" else None
    result = world.drive()
    assert not result.is_success
    assert [spec.attempt for spec in world.attempts if spec.name.step == "s1"] == [0]
    assert world.retries == []
