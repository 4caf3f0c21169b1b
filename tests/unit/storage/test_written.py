"""Reads of objects that a store doesn't show yet."""

from __future__ import annotations

import itertools

import pytest

from k8sflow.errors import ObjectNotFoundError
from k8sflow.storage import written
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.objects import Buffer
from k8sflow.storage.written import get_written


class Slow(MemoryStore):
    """Shows an object at the fourth look."""

    is_shared = True

    def __init__(self) -> None:
        super().__init__()
        self.looks = itertools.count(1)

    def get(self, key: str) -> Buffer:
        if next(self.looks) < 4:
            raise ObjectNotFoundError(f"there is no {key}.")
        return super().get(key)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_PAUSES_SECONDS", (0.0,) * 5)


def test_an_object_that_was_written_is_waited_for() -> None:
    store = Slow()
    store.put("a", [b"x"])
    assert bytes(get_written(store, "a")) == b"x"
    assert next(store.looks) == 5


def test_an_object_that_was_deleted_is_missing() -> None:
    store = Slow()
    with pytest.raises(ObjectNotFoundError):
        get_written(store, "a")
    assert next(store.looks) == 7


def test_a_folder_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Slow()
    monkeypatch.setattr(store, "is_shared", False)
    with pytest.raises(ObjectNotFoundError):
        get_written(store, "a")
    assert next(store.looks) == 2
