"""Step decorators: what they keep, and what is wrong with how they are written."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import resources, step
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.base import Decoration, of
from k8sflow.flow.decorators.kubernetes import kubernetes
from k8sflow.flow.decorators.registry import parse
from k8sflow.flow.decorators.step import is_step


def test_decorators_keep_what_was_written_out() -> None:
    """In the order in which they were applied; the same one twice is refused."""

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
def test_a_wrong_option_is_told(make: Any, words: str) -> None:
    """At once, where it is not in a flow's class."""
    with pytest.raises(FlowDefinitionError, match=words):
        make()(lambda self: None)


@pytest.mark.parametrize(
    ("text", "decoration"),
    [
        ("kubernetes", Decoration(kubernetes, {})),
        ("kubernetes:", Decoration(kubernetes, {})),
        ("kubernetes:image=a:5000/b@sha256:c", Decoration(kubernetes, {"image": "a:5000/b@sha256:c"})),
        ("resources:cpu=2, memory=4Gi", Decoration(resources, {"cpu": "2", "memory": "4Gi"})),
    ],
)
def test_with_names_a_decorator(text: str, decoration: Decoration) -> None:
    """With options behind a colon."""
    assert parse(text) == decoration


@pytest.mark.parametrize(
    "text",
    ["", "batch", "kubernetes:image", "kubernetes:imagge=x", "resources:image=x", ":", "kubernetes:cpu=no", "=,="],
)
def test_a_wrong_with_is_told(text: str) -> None:
    """With what there is."""
    with pytest.raises(FlowDefinitionError):
        parse(text)
