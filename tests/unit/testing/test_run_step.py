"""run_step: one step inside of a test."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from k8sflow.errors import ParameterError, RunError
from k8sflow.testing import run_step
from tests.unit.testing import flows
from tests.unit.testing.flows import Configured, Fails, Grid, Nested, Ways


def test_the_start_runs_with_parameters() -> None:
    """The result has the next step and the items of its foreach."""
    result = run_step(Grid, "start", parameters={"n": "4"})
    assert result.artifacts["items"] == result.items == result.foreach == [0, 1, 2, 3]
    assert result.next == ("work",)
    assert "base" in repr(result)
    assert not hasattr(result, "value")


def test_a_step_runs_with_configs() -> None:
    """A config may be named by its attribute; one without a value has its default."""
    given = {"times": 0, "names": [], "place": "away"}
    assert run_step(Configured, "start", configs={"limits": given}).seen == (0, "away", "away", [])
    assert run_step(Configured, "start", parameters={"rows": 7}).seen == (7, "home", "home", ["ONE"])


def test_a_branch_runs_with_its_item() -> None:
    """It runs inside of its decorators' wrappers."""
    result = run_step(Grid, "work", artifacts={"base": 1}, input=5, index=2, retry_count=1)
    assert result.value == 36
    assert result.seen == ("here", "work", "2", 2)
    assert result.marks == ["work"]
    assert result.next == ("left", "right")
    assert result.foreach is None


def test_a_switch_reports_its_choice() -> None:
    """A switch may come back to itself."""
    before = {"turns": 0}
    assert run_step(Grid, "turn", artifacts=before, input=0).next == ("join",)
    assert run_step(Grid, "turn", artifacts=before, input=3).next == ("turn",)


def test_a_join_runs_with_inputs() -> None:
    """Inputs are a list for a foreach, by step for a split, or results of steps."""
    split = run_step(Grid, "meet", inputs={"right": {"failed": None, "value": 3}, "left": {"value": 3}}, input=7)
    assert (split.value, split.failed) == (3, None)
    assert split.next == ("turn",)
    ordered = run_step(Grid, "meet", inputs=[{"value": 3}, {"failed": "x", "value": 3}])
    assert ordered.failed == "x"
    turned = [run_step(Grid, "turn", artifacts=split, input=item) for item in (4, 5)]
    left = {"value": 1, "failed": None, "turns": 2, "marks": []}
    joined = run_step(Grid, "join", inputs=[left, {**left, "value": 2}])
    assert (joined.values, joined.inputs) == ([1, 2], [None, None])
    again = run_step(Grid, "join", inputs=[{**left, **found.artifacts} for found in turned])
    assert again.values == [3, 3]


def test_results_lead_from_step_to_step() -> None:
    """Nested foreaches keep the items that each branch was given."""
    start = run_step(Nested, "start")
    words = []
    for i, letter in enumerate(start.foreach or ()):
        outer = run_step(Nested, "outer", artifacts=start, input=letter, index=i)
        around = (i, 2, letter)
        inner = [
            run_step(Nested, "inner", artifacts=outer, foreach_stack=[around, (k, 2, number)])
            for k, number in enumerate(outer.foreach or ())
        ]
        assert inner[1].stack == [around, (1, 2, 2)]
        words.append(run_step(Nested, "collect", inputs=inner, foreach_stack=[around]))
    assert [found.letter for found in words] == ["a", "b"]
    assert run_step(Nested, "join", inputs=words).words == ["a1", "a2", "b1", "b2"]


def test_a_branch_without_a_step_and_processes_that_know_each_other() -> None:
    """They behave as in a run."""
    assert run_step(Ways, "join", inputs={"start": {"x": 1}, "a": {"y": 2}}).sums == [2, 1]
    assert run_step(Ways, "join", inputs={"start": {"x": 1}, "a": {"y": 2}}).foreach == [0, 1]
    assert run_step(Ways, "train", foreach_stack=[(1, 3, 1)]).place == (1, 3)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_exception_is_raised_unchanged(error: BaseException) -> None:
    """It is raised at once, despite @retry; its traceback starts in the step."""
    flows.raised[:], flows.executions[:] = [error], []
    with pytest.raises(type(error)) as raised:
        run_step(Fails, "start")
    assert raised.value is error
    assert flows.executions == [0]
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][1:] == ["run_step", "start"]


def test_a_missing_artifact_is_reported() -> None:
    """The error is the same as in a run."""
    with pytest.raises(AttributeError, match=r"self\.base is not set in step work. It is set in step start"):
        run_step(Grid, "work", input=5, retry_count=1)


@pytest.mark.parametrize(
    ("flow", "step", "given", "words"),
    [
        (Grid, "wrk", {}, "no step 'wrk'"),
        (Grid, "start", {"artifacts": {"x": 1}}, "the first step of the flow"),
        (Grid, "start", {"input": 1}, "not in a foreach"),
        (Grid, "work", {"inputs": [{}]}, "is not a join"),
        (Grid, "join", {"artifacts": {"x": 1}}, "inherits no artifacts"),
        (Grid, "join", {}, "needs inputs"),
        (Grid, "meet", {"inputs": [{}]}, "joins left, right, but got 1 inputs"),
        (Grid, "meet", {"inputs": {"lft": {}}}, "doesn't join 'lft'"),
        (Nested, "inner", {"foreach_stack": [(0, 1, "a")]}, "in 2 foreaches, but foreach_stack has 1"),
    ],
    ids=range(9),
)
def test_an_impossible_call_is_refused(flow: Any, step: str, given: dict[str, Any], words: str) -> None:
    """The error says what to pass instead."""
    with pytest.raises(RunError, match=words) as raised:
        run_step(flow, step, **given)
    assert raised.value.advice
    with pytest.raises(ParameterError, match="no parameter 'm'"):
        run_step(flow, step, **given, parameters={"m": 1})
