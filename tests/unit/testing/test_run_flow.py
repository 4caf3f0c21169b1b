"""run_flow: a whole flow inside of a test."""

from __future__ import annotations

import os
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from k8sflow import FlowSpec, current, step, user_step_decorator
from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.testing import run_flow
from tests.unit.testing import flows
from tests.unit.testing.flows import Configured, Fails, Grid, Nested, Ways


def test_a_flow_runs_to_its_end_like_anywhere() -> None:
    """Foreach, split, loop, retry, catch, wrappers, variables, current and parallel_map have their own outcomes."""
    run = run_flow(Grid, n=3, learning_rate="0.25")
    assert run.successful
    data = run.data
    assert data is not None
    assert data.values == [10, 17, 24]
    assert data.inputs == [0, 1, 2]
    assert data.failures == ["division by zero"]
    assert data.turns == [1, 2, 3]
    assert data.marks == ["work"]
    assert data.doubled == 0.5
    assert [task.data.squares for task in run["left"]] == [[0, 1], [0], []]
    assert run["work"]["1"].data.seen == ("here", "work", "1", 1)
    assert run["work"]["1"].current_attempt == 1
    assert run["start"].task.data.project.startswith("tested.user.")
    assert "PLACE" not in os.environ
    assert not current.is_running_flow


def test_other_shapes_run_too() -> None:
    """Examples are nested foreaches, a branch without a step, and processes that know each other."""
    nested = run_flow(Nested)
    assert nested["join"].task.data.words == ["a1", "a2", "b1", "b2"]
    assert nested["inner"]["1.0"].data.stack == [(1, 2, "b"), (0, 2, 1)]
    ways = run_flow(Ways)
    assert ways["join"].task.data.sums == [2, 1]
    assert ways["collect"].task.data.places == [(0, 2), (1, 2)]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It creates no file, process or thread."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process or a thread was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    beside = sorted(path.name for path in Path(flows.__file__).parent.iterdir() if path.name != "__pycache__")
    run_flow(Nested)
    assert list(tmp_path.iterdir()) == []
    assert beside == sorted(p.name for p in Path(flows.__file__).parent.iterdir() if p.name != "__pycache__")


def test_an_exception_is_raised_unchanged() -> None:
    """It is raised after the retries, and its traceback starts in the step."""
    for error in (ValueError("x"), SystemExit(3)):
        flows.raised[:], flows.executions[:] = [error], []
        with pytest.raises(type(error)) as raised:
            run_flow(Fails)
        assert raised.value is error
        assert flows.executions == [0, 1, 2]
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names[-1] == "start"
        assert "execute" not in names


def test_an_exception_that_ends_the_test_is_not_retried() -> None:
    """Ctrl-C and pytest's own exceptions are examples."""

    class Skipped(BaseException):
        """An exception like pytest's."""

    for error in (KeyboardInterrupt(), Skipped()):
        flows.raised[:], flows.executions[:] = [error], []
        with pytest.raises(type(error)):
            run_flow(Fails)
        assert flows.executions == [0]
        assert not current.is_running_flow


def test_values_are_pickled() -> None:
    """A branch doesn't see another one's change of a list; an error reports a value that can't be stored."""

    class Shared(FlowSpec):
        @step
        def start(self):
            self.items = [1, 2]
            self.shared: list[int] = []
            self.next(self.add, foreach="items")

        @step
        def add(self):
            self.shared.append(self.input)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.found = [branch.shared for branch in inputs]
            self.next(self.end)

        @step
        def end(self):
            pass

    assert run_flow(Shared)["join"].task.data.found == [[1], [2]]

    class Unstorable(FlowSpec):
        @step
        def start(self):
            self.lock = threading.Lock()
            self.next(self.end)

        @step
        def end(self):
            pass

    with pytest.raises(Exception, match="the artifact 'lock'"):
        run_flow(Unstorable)


def test_configs_apply_to_one_run() -> None:
    """Decorators, defaults and mutators see them; the next run has the defaults again."""
    given = {"times": "1", "names": ["two", "three"], "place": "away"}
    for _ in range(2):
        run = run_flow(Configured, configs={"the-limits": given})
        assert run["start"].task.data.seen == (5, "away", "away", ["TWO", "THREE"])
        assert run["start"].task.current_attempt == 1
        assert not hasattr(Configured, "two")
        plain = run_flow(Configured)
        assert plain["start"].task.data.seen == (2, "home", "home", ["ONE"])
        assert plain["start"].task.current_attempt == 0
    with pytest.raises(ParameterError, match="limit: Configured has no such config") as raised:
        run_flow(Configured, configs={"limit": 1})
    assert "the-limits" in raised.value.advice
    with pytest.raises(ParameterError, match="no such config"):
        run_flow(Grid, configs={"limit": 1})


def test_mistakes_are_reported() -> None:
    """Mistakes in the flow are reported all at once, and those in the call."""

    class Wrong(FlowSpec):
        @step
        def start(self):
            self.next(self.nd)

        @step
        def end(self):
            pass

    with pytest.raises(FlowDefinitionError, match="Wrong has a mistake"):
        run_flow(Wrong)
    with pytest.raises(ParameterError, match="Grid has no parameter 'm'"):
        run_flow(Grid, m=1)
    with pytest.raises(ParameterError, match="'x' is not of type int"):
        run_flow(Grid, n="x")


def test_flows_with_decorators_of_the_same_name_keep_their_own() -> None:
    """The tests of several flows may share a process."""

    @user_step_decorator
    def marked(step_name: str, flow: Any, inputs: Any, attributes: Any) -> Any:
        flow.marks = "those of another flow"
        yield

    class Other(FlowSpec):
        @marked
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    assert run_flow(Other)["start"].task.data.marks == "those of another flow"
    assert run_flow(Grid, n=1)["join"].task.data.marks == ["work"]
