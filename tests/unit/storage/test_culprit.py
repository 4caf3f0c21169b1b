"""The expression for the part of a value that can't be pickled."""

from __future__ import annotations

import collections
import functools
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cloudpickle
import pytest

from k8sflow.storage.culprit import path_to_culprit

LOCK = threading.Lock()


class Pair(NamedTuple):
    first: object
    second: object


class Model:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None:
        """Nothing; the object counts."""


class Slots:
    __slots__ = ("good", "lock")

    def __init__(self) -> None:
        self.good, self.lock = 1, LOCK


class Guarded(Model):
    """Leaves its lock out, so that isn't to blame."""

    def __getstate__(self) -> dict[str, Any]:
        return {key: part for key, part in vars(self).items() if key != "lock"}


class Silent(Model):
    def __repr__(self) -> str:
        raise ValueError("no repr")

    __hash__ = object.__hash__


@dataclass
class Data:
    parts: list[Any] = field(default_factory=lambda: [{"a": (1, LOCK)}])


def _closure() -> Any:
    lock = threading.Lock()
    return lambda: lock


def _cycle() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value, Model(lock=LOCK)]
    return value


VALUES = {
    "deep": (Model(callbacks=[1, 2, Model(lock=LOCK)]), "self.m.callbacks[2].lock"),
    "dataclass": (Data(), "self.m.parts[0]['a'][1]"),
    "named tuple": (Pair(1, [LOCK]), "self.m.second[0]"),
    "slots": (Slots(), "self.m.lock"),
    "left out": (Guarded(lock=LOCK, other=[LOCK]), "self.m.other[0]"),
    "closure": ({"f": _closure()}, "self.m['f'] (its variable lock)"),
    "default": (lambda lock=LOCK: lock, "self.m.__defaults__[0]"),
    "method": (Model(lock=LOCK).method, "self.m.__self__.lock"),
    "partial": (functools.partial(print, LOCK), "self.m.args[0]"),
    "cycle": (_cycle(), "self.m['self'][1].lock"),
    "key": ({LOCK: 1}, f"self.m (the key {LOCK!r})"),
    "long key": ({"k" * 100: LOCK}, f"self.m['{'k' * 56}...]"),
    "no repr": ({Silent(lock=LOCK): 1}, "self.m (the key <Silent>).lock"),
    "deque": (collections.deque([1, LOCK]), "self.m[1]"),
    "default dict": (collections.defaultdict(list, a=[LOCK]), "self.m['a'][0]"),
    "itself": (LOCK, "self.m"),
}


@pytest.mark.parametrize(("value", "path"), VALUES.values(), ids=VALUES)
def test_the_path_leads_to_the_part(value: Any, path: str) -> None:
    """As a user would write it, where there is an expression for it."""
    found, part = path_to_culprit(value, "self.m", cloudpickle.dumps)
    assert found == path
    with pytest.raises(TypeError):
        cloudpickle.dumps(part)


def test_the_search_ends() -> None:
    """It returns the path as far as it was found: parts may be deep, many, or slow to pickle."""
    deep: list[Any] = [LOCK]
    for _ in range(300):
        deep = [deep]
    path, _ = path_to_culprit(deep, "m", cloudpickle.dumps)
    assert path == "m" + 20 * "[0]"

    def slow(part: object) -> None:
        time.sleep(0.05)
        if isinstance(part, list):
            raise TypeError("never")

    assert path_to_culprit([[object() for _ in range(10_000)]], "m", slow)[0] == "m[0]"
