"""Values that can be saved but not loaded are refused when they are saved."""

from __future__ import annotations

import ctypes
import enum
import functools
import os
import sys
import tempfile
from collections import namedtuple
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k8sflow import FlowSpec
from k8sflow.errors import ArtifactError
from k8sflow.storage import encoding, loadable
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore


@pytest.fixture
def saved(folder_store: FolderStore) -> ArtifactStore:
    """Artifacts of a flow F in a folder."""
    return ArtifactStore(folder_store, "F")


class ApiError(Exception):
    def __init__(self, status: int, *, detail: str) -> None:
        super().__init__(status)
        self.detail = detail


class TwoParts(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


class Wrapper:
    def __init__(self, data: Any) -> None:
        self.data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)


class Symbol:
    def __new__(cls, symbol: str) -> Any:
        made = object.__new__(cls)
        made.symbol = symbol  # type: ignore[attr-defined]
        return made


class Frozen:
    __slots__ = ("a",)

    def __init__(self) -> None:
        object.__setattr__(self, "a", 1)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("it is frozen")


class Node:
    def __init__(self, key: int) -> None:
        self.key = key
        self.seen = {self}

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return self is other


UNLOADABLE: dict[str, tuple[Any, str]] = {
    "keyword": (ApiError(404, detail="no page"), "ApiError"),
    "message": (TwoParts("a", "b"), "TwoParts"),
    "getattr": (Wrapper([1]), "Wrapper"),
    "new": (Symbol("x"), "Symbol"),
    "slots": (Frozen(), "Frozen"),
    "hash": (Node(1), "Node"),
    "ctypes": ((ctypes.c_int * 3)(1, 2, 3), "c_int_Array_3"),
    "in a list": ([{"error": ApiError(404, detail="no page")}], "ApiError"),
    "in an array": (np.array([Wrapper(1)], object), "Wrapper"),
    "beside an array": ({"data": np.zeros(5000), "wrapper": Wrapper(1)}, "Wrapper"),
}


@pytest.mark.parametrize("case", UNLOADABLE)
def test_an_unloadable_value_is_refused_by_the_step_that_sets_it(saved: ArtifactStore, case: str) -> None:
    """The error has the artifact, the class, and advice."""
    value, kind = UNLOADABLE[case]
    with pytest.raises(ArtifactError, match=r"the artifact 'kept', .* no later step could load it") as caught:
        saved.save(value, "kept")
    assert kind in caught.value.cause
    assert "__reduce__" in caught.value.advice


@dataclass(frozen=True, slots=True)
class Slotted:
    a: int


class Color(enum.Enum):
    RED = 1


Pair = namedtuple("Pair", "a b")  # noqa: PYI024  as users write it


class OwnState:
    """Pickles in its own way, correctly."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getstate__(self) -> Any:
        return {"data": self.data}

    def __setstate__(self, state: Any) -> None:
        self.data = state["data"]
        self.data[0] = 1  # an array may be written to


@pytest.mark.parametrize(
    "value",
    [ValueError("x"), Slotted(1), Color.RED, Pair(1, 2), {"error": KeyError("x")}],
    ids=repr,
)
def test_loadable_values_are_saved(saved: ArtifactStore, value: Any) -> None:
    """Unusual classes are among them."""
    assert repr(saved.load(saved.save(value, "kept"), "kept")) == repr(value)


def test_the_check_does_not_change_the_value(saved: ArtifactStore) -> None:
    """Its class writes into its array when it is loaded."""
    value = OwnState(np.zeros(1000))
    ref = saved.save(value, "kept")
    assert value.data[0] == 0
    assert saved.load(ref, "kept").data[0] == 1


@dataclass
class Plain:
    data: Any


@pytest.mark.parametrize(
    "value", [np.zeros(10_000), {"a": [1, 2, "x"]}, Plain(np.zeros(10)), [Path("a")], np.ma.masked_equal([1, 2], 1)]
)
def test_known_types_are_not_loaded(saved: ArtifactStore, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a large value would take too long."""
    monkeypatch.setattr(encoding.Encoded, "load", None)
    saved.save(value, "kept")


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats values of more than 100 bytes as too large for a second copy."""
    monkeypatch.setattr(loadable, "_MOST_BYTES", 100)
    monkeypatch.setattr(encoding.Encoded, "load", None)


LARGE: dict[str, Any] = {
    "its text": Wrapper("x" * 100_000),
    "its list": Wrapper(list(range(5000))),
    "one of many": [*map(str, range(5000)), Wrapper("x" * 2000)],
    "beside a lambda": {"function": lambda: 1, "wrapper": Wrapper("x" * 2000)},
}


@pytest.mark.usefixtures("no_copies")
@pytest.mark.parametrize("case", LARGE)
def test_a_large_unloadable_value_is_refused(saved: ArtifactStore, case: str) -> None:
    """The check makes no second copy, which may not fit into memory."""
    with pytest.raises(ArtifactError, match="no later step could load it") as error:
        saved.save(LARGE[case], "kept")
    assert "Wrapper" in error.value.cause


class Appends(OwnState):
    """Changes its list when it is loaded."""

    def __setstate__(self, state: Any) -> None:
        self.data = state["data"]
        self.data.append(0)


@pytest.mark.usefixtures("no_copies")
@pytest.mark.parametrize("value", [OwnState([0] * 5000), Appends([0] * 5000), OwnState({0: "x" * 5000})])
def test_a_large_loadable_value_is_saved_unchanged(saved: ArtifactStore, value: OwnState) -> None:
    """Its class changes its parts when it is loaded."""
    before = repr(value.data)
    saved.save([value, "x" * 5000], "kept")
    assert repr(value.data) == before


def test_a_value_of_more_than_128_mib_is_checked_without_a_second_copy(saved: ArtifactStore) -> None:
    """The check neither copies nor scans the text, which has a realistic size."""
    with pytest.raises(ArtifactError, match="no later step could load it"):
        saved.save(Wrapper("x" * (130 << 20)), "kept")


def test_values_that_would_change_their_type_are_refused(saved: ArtifactStore, tmp_path: Path) -> None:
    """A file's text would come back as an io.StringIO, a memoryview as bytes."""
    (tmp_path / "rows.txt").write_text("a\nb\n")
    with (tmp_path / "rows.txt").open() as file:
        for value, words in ((file, "is open in this process only"), (memoryview(b"abc"), "Store bytes")):
            for around in (value, [value], {"x": value}):
                with pytest.raises(ArtifactError, match=words):
                    saved.save(around, "kept")
    kept = saved.load(saved.save(lambda: sys.stdout, "kept"), "kept")
    assert kept() is sys.stdout


class Held(FlowSpec):
    def method(self) -> int:
        return 1


def test_values_that_are_only_usable_in_this_process_are_refused(saved: ArtifactStore) -> None:
    """The flow itself, also inside a method or a closure, and what the system takes back when the task ends."""
    flow = object.__new__(Held)
    memory = SharedMemory(f"test_loadable_{os.getpid()}", create=True, size=10)
    temporary = tempfile.TemporaryDirectory()
    with temporary:
        held = [flow.method, lambda: flow, flow, functools.partial(len, flow)]
        refused = [(value, "it holds the flow itself") for value in held]
        for value, words in (*refused, (temporary, "the folder is deleted"), (memory, "the memory is freed")):
            for around in (value, [value], {"x": value}):
                with pytest.raises(ArtifactError, match=words):
                    saved.save(around, "kept")
    memory.close()
    memory.unlink()
    assert saved.load(saved.save(Held, "kept"), "kept") is Held
