"""Errors have three parts, and survive a trip to another process."""

from __future__ import annotations

import inspect
import pickle

import pytest

from k8sflow import errors, exception
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


def test_a_metaflow_users_own_errors_are_errors_of_ours() -> None:
    """Raised with a text, derived from, and caught under Metaflow's names."""

    class Empty(exception.MetaflowException):
        headline = "Nothing there"

    with pytest.raises(errors.K8sflowError, match="no rows in week 3"):
        raise Empty("no rows in week 3")
    with pytest.raises(exception.MetaflowNotFound):
        raise exception.MetaflowNamespaceMismatch("not yours")
    assert issubclass(errors.ArtifactError, exception.UnhandledInMergeArtifactsException)
