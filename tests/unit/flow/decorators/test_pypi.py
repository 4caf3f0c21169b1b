"""The environment that a step asks for."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import pypi as module
from k8sflow.flow.decorators.base import Decoration, of
from k8sflow.flow.decorators.pypi import pypi, requested
from k8sflow.flow.decorators.requested import Requested


def of_flow(**options: Any) -> tuple[Decoration, ...]:
    return (Decoration(module.pypi_base, options),)


def of_step(**options: Any) -> tuple[Decoration, ...]:
    @pypi(**options)
    def start(self: Any) -> None: ...

    return of(start)


def test_a_step_without_packages_has_no_environment() -> None:
    assert requested((), ()) is None


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.2.3", "pandas==2.2.3"),
        ("2.*", "pandas==2.*"),
        (">=2,<3", "pandas>=2,<3"),
        ("~=2.1", "pandas~=2.1"),
        ("", "pandas"),
        ("*", "pandas"),
        (None, "pandas"),
        (2, "pandas==2"),
        ("@git+https://example.org/pandas", "pandas @ git+https://example.org/pandas"),
        ("git+https://example.org/pandas@main", "pandas @ git+https://example.org/pandas@main"),
        ("./pandas-2-py3-none-any.whl", "pandas @ ./pandas-2-py3-none-any.whl"),
    ],
)
def test_a_version_is_a_condition_an_exact_version_or_a_source(version: Any, line: str) -> None:
    assert requested((), of_step(packages={"pandas": version})) == Requested((line,))


def test_a_steps_packages_are_added_to_those_of_the_flow_and_win() -> None:
    found = requested(
        of_flow(packages={"Scikit_Learn": "1.5", "numpy": "1.26"}, python="3.11"),
        of_step(packages={"scikit-learn": "1.6", "attrs": ""}, python="3.12"),
    )
    assert found == Requested(("attrs", "numpy==1.26", "scikit-learn==1.6"), "3.12")


def test_extras_are_written_in_the_name_or_by_themselves() -> None:
    found = requested((), of_step(packages={"pandas[parquet]": ">2", "dask": ""}, extras={"pandas": ["excel"]}))
    assert found == Requested(("dask", "pandas[parquet,excel]>2"))


def test_disabled_turns_off_one_level_or_the_step() -> None:
    assert requested(of_flow(packages={"a": ""}), of_step(disabled=True)) is None
    assert requested(of_flow(packages={"a": ""}, disabled=True), ()) is None
    assert requested(of_flow(packages={"a": ""}, disabled=True), of_step(packages={"b": ""})) == Requested(("b",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packages": ["pandas"]}, "not a dictionary"),
        ({"packages": {"pan das": "1"}}, "can't be the name of a package"),
        ({"packages": {"pandas": "latest"}}, "'latest' is not a version of 'pandas'"),
        ({"packages": {"pandas": True}}, "has to be a text"),
        ({"python": "2.7"}, "not a version of Python"),
        ({"python": 3.12}, "not a version of Python"),
        ({"packages": {"pandas": ""}, "extras": {"numpy": ["x"]}}, "not among the packages"),
        ({"package": {}}, "Did you mean 'packages'"),
    ],
)
def test_what_can_not_be_used_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FlowDefinitionError, match=message):
        of_step(**options)
