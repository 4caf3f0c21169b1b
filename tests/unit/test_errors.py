"""Errors have three parts, and can be pickled."""

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
    """parallel_map and process pools pass errors between processes."""
    error = pickle.loads(pickle.dumps(kind("what", cause="why", advice="do")))
    assert type(error) is kind
    assert (error.summary, error.cause, error.advice) == ("what", "why", "do")
    assert str(error) == "what\nwhy\ndo"
    assert str(kind("what", advice="do")) == "what\ndo"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """It lists every error."""
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert f" {kind.__name__} " in errors.__doc__


def test_metaflow_users_errors_are_k8sflow_errors() -> None:
    """They are raised with a text, derived from, and caught by Metaflow's names."""

    class Empty(exception.MetaflowException):
        headline = "Nothing there"

    with pytest.raises(errors.K8sflowError, match="no rows in week 3"):
        raise Empty("no rows in week 3")
    with pytest.raises(exception.MetaflowException):
        raise exception.MetaflowNamespaceMismatch("not yours")
    assert Empty("no rows").titled == "Nothing there: no rows"
    assert str(exception.MetaflowException("bad", 7)) == "line 7: bad"
    assert exception.MetaflowException().message == ""


class Counted(exception.MetaflowException):
    """An error with its own arguments."""

    headline = "Too few"

    def __init__(self, count: int, *, needed: int) -> None:
        super().__init__(f"{count} of {needed}")
        self.needed = needed


class Bare(exception.MetaflowException):
    """An error that doesn't call __init__."""

    def __init__(self) -> None:
        pass


def test_a_users_error_can_be_pickled_with_any_init() -> None:
    """It can be an artifact, and be raised by parallel_map."""
    found = pickle.loads(pickle.dumps(Counted(3, needed=5)))
    assert (found.needed, found.titled) == (5, "Too few: 3 of 5")
    assert pickle.loads(pickle.dumps(Bare())).titled == ""


def test_a_merge_has_two_errors() -> None:
    """Each has the names of the artifacts, like in Metaflow; an except clause catches the one that it names."""
    one, other = exception.UnhandledInMergeArtifactsException, exception.MissingInMergeArtifactsException
    assert not issubclass(one, other)
    assert not issubclass(other, one)
    for kind in (one, other):
        assert issubclass(kind, errors.ArtifactError)
        assert pickle.loads(pickle.dumps(kind("x", ["a", "b"]))).artifact_names == ["a", "b"]
