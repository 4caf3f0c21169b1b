"""``@conda``: names and versions of conda's packages as those of PyPI."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import conda as module
from k8sflow.flow.decorators.base import Decoration, of
from k8sflow.flow.decorators.pypi import pypi_base, requested
from k8sflow.flow.decorators.requested import Requested


def of_step(**options: Any) -> tuple[Decoration, ...]:
    @module.conda(**options)
    def start(self: Any) -> None: ...

    return of(start)


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("1.2", "x==1.2"),
        ("==1.2", "x==1.2"),
        ("=1.2", "x==1.2.*"),
        ("1.2.*", "x==1.2.*"),
        ("1.2*", "x==1.2.*"),
        ("=1.2.*", "x==1.2.*"),
        ("1.2=py310_0", "x==1.2"),
        ("=1.2=py310_0", "x==1.2"),
        ("1.2 py310_0", "x==1.2"),
        (">=1.2", "x>=1.2"),
        (">=1.2.*", "x>=1.2"),
        (">=1.2, <2", "x>=1.2,<2"),
        ("!=1.2.*", "x!=1.2.*"),
        ("~=1.2", "x~=1.2"),
        ("*", "x"),
        ("", "x"),
        (None, "x"),
        (2, "x==2"),
    ],
)
def test_a_version_means_what_it_means_to_conda(version: Any, line: str) -> None:
    assert requested((), of_step(packages={"x": version})) == Requested((line,))


@pytest.mark.parametrize("version", ["1.2|1.3", 1.10, ">", "latest", "=>1", "1.2,x"])
def test_a_version_that_pypi_can_not_express_is_refused(version: Any) -> None:
    with pytest.raises(FlowDefinitionError, match="of 'x'"):
        of_step(packages={"x": version})


def test_packages_have_the_names_of_pypi_and_both_options_count() -> None:
    found = requested((), of_step(libraries={"PyTorch": "2.1.0", "python": "3.11"}, packages={"opencv": ">=4"}))
    assert found == Requested(("opencv-python>=4", "torch==2.1.0"), "3.11")


def test_a_steps_packages_win_over_those_of_the_flow_whichever_decorator_has_them() -> None:
    base = (Decoration(module.conda_base, {"libraries": {"a": "1", "b": "1"}, "python": "3.10"}),)
    assert requested(base, of_step(packages={"a": "2"})) == Requested(("a==2", "b==1"), "3.10")
    base = (Decoration(pypi_base, {"packages": {"a": "1"}}),)
    assert requested(base, of_step(packages={"a": "2"})) == Requested(("a==2",))


def test_it_is_fine_where_it_is_disabled() -> None:
    base = (Decoration(module.conda_base, {"libraries": {"cudatoolkit": "1"}}),)
    assert requested(base, of_step(disabled=True)) is None
    assert requested((Decoration(module.conda_base, {"disabled": True}),), ()) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cudatoolkit", "PyPI's torch brings CUDA"),
        ("conda-forge::pytorch", "write 'torch', if PyPI's package is the same"),
        ("nvidia::cudatoolkit", "PyPI's torch brings CUDA"),
        ("r-base", "it has to be in the image"),
        ("ffmpeg", "PyPI's package of this name is another one"),
    ],
)
def test_a_package_that_only_a_channel_has_is_refused_by_name(name: str, hint: str) -> None:
    with pytest.raises(FlowDefinitionError) as raised:
        requested((), of_step(libraries={name: "1", "librosa": ""}))
    assert f"@conda names {name}, which only a channel of conda has" in str(raised.value)
    assert hint in str(raised.value)


def test_one_line_says_which_packages_have_another_name() -> None:
    assert module.notice(()) is None
    found = (*of_step(packages={"pytorch": "", "numpy": "1"}), *of_step(packages={"opencv": ""}))
    assert (
        module.notice(found)
        == "The packages of @conda come from PyPI, where opencv is opencv-python, pytorch is torch."
    )
