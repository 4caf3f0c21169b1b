"""Parameters: types, defaults, and values that can't be used."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import FlowSpec, Parameter
from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.spec import constants, parameters


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (Parameter("p", default=1), "-5", -5),
        (Parameter("p", default=1), "1_000", 1000),
        (Parameter("p", default=1), 2.0, 2),
        (Parameter("p", default=0.5), "1e-3", 0.001),
        (Parameter("p", default=0.5), "3", 3.0),
        (Parameter("p", default="x"), "ünï", "ünï"),
        (Parameter("p", default="x"), "", ""),
        (Parameter("p"), "5", "5"),
        (Parameter("p", type=int), "5", 5),
        (Parameter("p", type=float, default=5), "5", 5.0),
        (Parameter("p", default=True), "no", False),
        (Parameter("p", default=False), " TRUE ", True),
        (Parameter("p", default=False), "1", True),
        (Parameter("p", type=bool), "off", False),
    ],
)
def test_a_value_is_converted_to_the_parameters_type(parameter: Parameter, text: Any, value: Any) -> None:
    """Which is the one given, or the default's."""
    found = parameter.convert(text, "the value")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (Parameter("p", default=1), "1.5"),
        (Parameter("p", default=1), 1.5),
        (Parameter("p", default=1), "many"),
        (Parameter("p", default=1), ""),
        (Parameter("p", default=1), float("inf")),
        (Parameter("p", default=1), float("nan")),
        (Parameter("p", default=1), "9" * 5000),
        (Parameter("p", default=0.5), "half"),
        (Parameter("p", default=True), "perhaps"),
        (Parameter("p", default=True), "2"),
    ],
    ids=range(10),
)
def test_a_value_of_another_type_is_told(parameter: Parameter, text: Any) -> None:
    """With the parameter, the value, the type and an example."""
    with pytest.raises(ParameterError) as told:
        parameter.convert(text, "the value")
    assert "'p'" in told.value.summary
    assert f"not of type {parameter.type_name}" in told.value.summary
    assert "--p " in told.value.advice
    assert len(told.value.summary) < 500


@pytest.mark.parametrize("name", ["", "a b", "a.b", "1a", "a/b", "--a", 5, None, "a\n"])
def test_a_name_that_can_be_no_option_is_told(name: Any) -> None:
    """When the class is made."""
    with pytest.raises(FlowDefinitionError, match="can't be an option"):
        Parameter(name)


@pytest.mark.parametrize("options", [{"default": [1]}, {"type": list}, {"type": "int"}, {"default": lambda: 1}])
def test_a_type_that_there_is_not_is_told(options: dict[str, Any]) -> None:
    """With those that there are."""
    with pytest.raises(FlowDefinitionError, match="one of str, int, float, bool"):
        Parameter("p", **options)


def test_a_default_of_the_wrong_type_is_told() -> None:
    """When the class is made, not when the run starts."""
    with pytest.raises(ParameterError, match="the default 'x' is not of type int"):
        Parameter("p", type=int, default="x")


def test_two_parameters_with_one_name_are_told() -> None:
    """They would be one option."""

    class Twice(FlowSpec):
        a = Parameter("n")
        b = Parameter("n")

    with pytest.raises(FlowDefinitionError, match="two parameters with the name 'n': a and b"):
        parameters(Twice)


def test_members_are_sorted_into_parameters_and_constants() -> None:
    """Methods, properties, nested classes and private names are neither; a derived class's member wins."""

    class Base(FlowSpec):
        replaced = Parameter("replaced", default=1)
        size = 1

    class Derived(Base):
        replaced = 5
        rate = Parameter("learning-rate", default=0.1)
        items = (1,)
        _private = 1

        class Nested:
            pass

        @property
        def double(self) -> int:
            return 2

        @staticmethod
        def helper() -> None: ...

    assert constants(Derived) == {"replaced": 5, "size": 1, "items": (1,)}
    assert list(parameters(Derived)) == ["rate"]
    assert list(parameters(Base)) == ["replaced"]


def test_outside_of_a_task_self_says_so() -> None:
    """The language works in steps only."""
    flow = FlowSpec.__new__(FlowSpec)
    with pytest.raises(RuntimeError, match="only in a step"):
        _ = flow.index
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        _ = flow.x
