"""The uses of decorators: their options, and mistakes in them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from k8sflow import resources, step
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import base
from k8sflow.flow.decorators.base import Decoration, Decorator, Option, of
from k8sflow.flow.decorators.kubernetes import kubernetes
from k8sflow.flow.decorators.step import is_step


def test_a_function_keeps_its_decorations() -> None:
    """They are in the order in which they were applied; a duplicate is refused."""

    @kubernetes(image="a")
    @resources(cpu=2, memory="4Gi")
    @step
    def start(self: Any) -> None: ...

    with pytest.raises(FlowDefinitionError, match="@resources is applied twice to start"):
        resources(cpu=1)(start)
    assert is_step(start)
    assert of(start) == (
        Decoration(resources, {"cpu": 2, "memory": "4Gi"}),
        Decoration(kubernetes, {"image": "a"}),
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: resources(cpu=-1), "cpu"),
        (lambda: resources(memory="much"), "memory"),
        (lambda: kubernetes(imagge="x"), "image"),
        (lambda: kubernetes(cpu="1x"), "cpu"),
        (lambda: resources(cpu=1)(5), "not a method"),
    ],
    ids=range(5),
)
def test_a_wrong_option_is_reported(make: Any, words: str) -> None:
    """The error is raised at once outside of a flow's class."""
    with pytest.raises(FlowDefinitionError, match=words):
        make()(lambda self: None)


def test_a_mistake_is_reported_with_its_line_and_a_correction() -> None:
    """The line is that in the flow's file."""
    line = inspect.currentframe().f_lineno + 2  # type: ignore[union-attr]
    with pytest.raises(FlowDefinitionError, match="Did you mean 'memory'") as raised:
        kubernetes(memori=5)(lambda self: None)
    assert f"{__file__}:{line}: @kubernetes has no option 'memori'." in str(raised.value)
    with pytest.raises(FlowDefinitionError, match="takes its options by name, not 3"):
        kubernetes(3)(lambda self: None)


def test_a_decorator_is_written_with_and_without_parentheses() -> None:
    """Its signature has the options, for help() and editors."""

    @kubernetes
    @step
    def start(self: Any) -> None: ...

    @kubernetes()
    @step
    def other(self: Any) -> None: ...

    assert base.of(start) == base.of(other) == (Decoration(kubernetes, {}),)
    assert "memory" in inspect.signature(kubernetes).parameters
    assert list(inspect.signature(Decorator("any", "any", None)).parameters) == ["options"]
    on_flow = Decorator("marked", "", (Option(str, "x", "x"),), on="flow")
    with pytest.raises(FlowDefinitionError, match="not a flow's class"):
        on_flow(x="1")(start)
