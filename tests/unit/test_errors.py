"""One tree of errors, each with three parts, that survives a trip to another process."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from pathlib import Path

import pytest

import k8sflow
from k8sflow import errors, exception, parallel

PACKAGE = Path(k8sflow.__file__).parent
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BaseException)]
PARALLEL = [parallel.RemoteError, parallel.WorkerDied, parallel.WorkerOutOfMemory]
# Caught inside the package, before they reach a user.
INTERNAL = {
    "DuplicateKeyError",
    "HiddenStateError",
    "InitReachedError",
    "LostAnswerError",
    "LostUploadError",
    "MissingPeersError",
    "NoAnswerError",
    "NoKeysError",
    "RefusedError",
    "ReplacedError",
    "SecretValueError",
    "ServerDied",
    "Stopped",
}
TREE_LINE = re.compile(r"^ {4}( *)(\w+)  +\S", re.MULTILINE)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.CaughtError])
def test_an_error_keeps_its_parts_when_it_is_pickled(kind: type[errors.K8sflowError]) -> None:
    """parallel_map and process pools send errors."""
    error = pickle.loads(pickle.dumps(kind("what", cause="why", advice="do")))
    assert type(error) is kind
    assert (error.summary, error.cause, error.advice) == ("what", "why", "do")
    assert str(error) == "what\nwhy\ndo"
    assert str(kind("what", advice="do")) == "what\ndo"


def test_every_error_of_the_package_is_in_one_of_two_modules() -> None:
    """So that the tree below is complete; parallel_map stands alone and has its own."""
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "exception.py"]  # those that only users raise
    found = {name for file in files for name in error_classes(file)} - INTERNAL
    assert found == {kind.__name__ for kind in [*KINDS, *PARALLEL]}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Each error is below its base, in both trees."""
    path: list[str] = []
    shown = {}
    for indent, name in TREE_LINE.findall(f"{errors.__doc__}".replace("RuntimeError\n", "RuntimeError  x\n")):
        path[len(indent) // 2 :] = [name]
        shown[name] = path[-2] if len(path) > 1 else None
    bases = {kind.__name__: kind.__bases__[0].__name__ for kind in [*KINDS, *PARALLEL]}
    assert shown == {**bases, "K8sflowError": None, "RuntimeError": None}


def test_every_error_can_be_imported_from_the_package() -> None:
    for kind in [*KINDS, *PARALLEL]:
        assert getattr(k8sflow, kind.__name__) is kind
        assert kind.__name__ in k8sflow.__all__


def test_one_except_clause_catches_every_error_but_those_of_parallel_map() -> None:
    for kind in KINDS:
        assert issubclass(kind, errors.K8sflowError)
    assert issubclass(errors.NotFoundError, KeyError)
    assert issubclass(errors.MissingArtifactError, AttributeError)
    assert issubclass(parallel.WorkerOutOfMemory, MemoryError)


def test_the_reason_why_an_artifact_is_missing_is_looked_for_when_it_is_shown() -> None:
    """``hasattr`` raises the error often; pickling it keeps the reason."""
    asked = []

    def explain() -> str:
        asked.append(True)
        return "No step sets it."

    error = errors.MissingArtifactError("self.x is not set in step end.", explain=explain)
    assert not asked
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "self.x is not set in step end. No step sets it."


def test_a_caught_error_survives_pickling() -> None:
    """It is an artifact."""
    error = pickle.loads(pickle.dumps(errors.CaughtError("builtins.ValueError", "bad", "Traceback …", "user_error")))
    assert (error.type, error.exception, error.outcome) == ("builtins.ValueError", "bad", "user_error")
    assert (str(error), repr(error)) == ("Traceback …", "<caught builtins.ValueError: bad>")


def error_classes(file: Path) -> list[str]:
    """The names of the public exception classes that a file defines."""
    classes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ClassDef)]
    raised = re.compile(r"(Error|Exception|Died|OutOfMemory)$")
    bases = {node.name: [ast.unparse(base).rpartition(".")[2] for base in node.bases] for node in classes}
    return [
        name
        for name, parents in bases.items()
        if not name.startswith("_") and any(raised.search(parent) for parent in parents)
    ]


def test_a_metaflow_users_own_errors_derive_from_ours() -> None:
    """Raised with a text, derived from, and caught under Metaflow's names."""

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
    """Takes arguments of its own."""

    headline = "Too few"

    def __init__(self, count: int, *, needed: int) -> None:
        super().__init__(f"{count} of {needed}")
        self.needed = needed


class Bare(exception.MetaflowException):
    """Calls no __init__."""

    def __init__(self) -> None:
        pass


def test_a_users_error_is_pickled_whatever_its_init_takes() -> None:
    """It may be an artifact, or come out of parallel_map."""
    found = pickle.loads(pickle.dumps(Counted(3, needed=5)))
    assert (found.needed, found.titled) == (5, "Too few: 3 of 5")
    assert pickle.loads(pickle.dumps(Bare())).titled == ""


def test_a_merge_has_two_kinds_of_errors() -> None:
    """Each with the names of the artifacts, as in Metaflow; an except clause takes the one that it names."""
    one, other = exception.UnhandledInMergeArtifactsException, exception.MissingInMergeArtifactsException
    assert not issubclass(one, other)
    assert not issubclass(other, one)
    for kind in (one, other):
        assert issubclass(kind, errors.ArtifactError)
        assert pickle.loads(pickle.dumps(kind("x", ["a", "b"]))).artifact_names == ["a", "b"]
