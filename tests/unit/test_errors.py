"""Errors have three parts, and survive a trip to another process."""

from __future__ import annotations

import inspect
import pickle

import pytest

from k8sflow import errors
from k8sflow.client import NotFoundError
from k8sflow.storage.objects import ObjectNotFoundError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.K8sflowError)]


@pytest.mark.parametrize("kind", [*KINDS, NotFoundError, ObjectNotFoundError])
def test_an_error_keeps_its_parts_when_it_is_pickled(kind: type[errors.K8sflowError]) -> None:
    """parallel_map and process pools send errors."""
    error = pickle.loads(pickle.dumps(kind("what", cause="why", advice="do")))
    assert type(error) is kind
    assert (error.summary, error.cause, error.advice) == ("what", "why", "do")
    assert str(error) == "what\nwhy\ndo"
    assert str(kind("what", advice="do")) == "what\ndo"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every error is told there."""
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert f" {kind.__name__} " in errors.__doc__
