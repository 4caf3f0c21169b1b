"""Artifacts: values come back equal, damage is seen before anything is unpickled (I4), content is stored once."""

from __future__ import annotations

import collections
import datetime as dt
import pickle
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from k8sflow.errors import ArtifactError
from k8sflow.storage import artifacts
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore, blob_key
from k8sflow.storage.encoding import encode, stored
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.objects import ObjectStore

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
    | st.text() | st.binary() | st.dates() | st.timedeltas() | st.uuids() | st.fractions()
)  # fmt: skip
HASHABLE = st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(HASHABLE, inner)
        | st.tuples(inner, inner)
        | st.frozensets(HASHABLE)
        | st.sets(HASHABLE)
        | st.builds(bytearray, st.binary())
    ),
    max_leaves=20,
)
DTYPES = ["?", "i1", "<i8", ">i8", "<f4", ">f8", "c16", "S5", "U7", "M8[ns]", "m8[s]", "V3", "O"]


@pytest.fixture
def saved(folder_store: FolderStore) -> ArtifactStore:
    """Artifacts of a flow F in a folder."""
    return ArtifactStore(folder_store, "F")


def _through(value: Any) -> Any:
    encoded = encode(value, "value")
    return stored(b"".join(encoded.parts), encoded.name).load()


@given(VALUES)
def test_nested_values_come_back_equal(value: Any) -> None:
    """They also have the same types."""
    found = _through(value)
    assert found == value
    assert type(found) is type(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES)
@example({0, 1, -4, 28, ""})
def test_a_value_that_was_only_read_keeps_its_reference(saved: ArtifactStore, value: Any) -> None:
    """This includes a set, whose iteration order changes; otherwise a join would report a conflict without reason."""
    ref = saved.save(value, "value")
    assert saved.save(saved.load(ref, "value"), "value", known=ref) == ref


def _arrays(dtype: str) -> list[np.ndarray[Any, Any]]:
    """Arrays of a type in every layout."""
    square = np.zeros((6, 8), dtype)
    if dtype not in {"V3", "M8[ns]", "m8[s]"}:
        square[...] = np.arange(48).reshape(6, 8).astype(dtype)
    read_only = square.copy()
    read_only.flags.writeable = False
    return [
        square, np.asfortranarray(square), square.T, square[::2], square[:, ::-2], square[3:3], read_only,
        np.array(square[0, 1]), np.broadcast_to(square[0], (5, 8)), square[:, 1:3], np.empty((0, 3), dtype),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_layout_come_back(dtype: str) -> None:
    """Values, type, shape and writability are the same as with plain pickle."""
    for array in _arrays(dtype):
        found = _through(array)
        plain = pickle.loads(pickle.dumps(array, protocol=5))
        assert (found.dtype, found.shape, found.strides) == (plain.dtype, plain.shape, plain.strides)
        assert np.array_equal(found, array)
        assert found.flags.writeable or not array.flags.writeable
        if found.flags.writeable:
            found[...] = found


def test_large_arrays_are_not_copied_into_the_pickle() -> None:
    """Their memory itself is written."""
    array = np.arange(1_000_000)
    encoded = encode({"a": array, "b": [array[:10]]}, "value")
    assert encoded.name == "pickle5"
    parts = encoded.parts
    assert any(memoryview(part).obj is array or np.shares_memory(np.frombuffer(part, "u1"), array) for part in parts)


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_many_buffers_of_odd_lengths_are_aligned(count: int) -> None:
    """Each starts at a multiple of 64 bytes."""
    value = [np.arange(n, dtype="u1") for n in range(count)] + ["end"]
    found = _through(value)
    assert found[-1] == "end"
    assert all(np.array_equal(a, b) for a, b in zip(found[:-1], value[:-1], strict=True))
    assert all(a.ctypes.data % 16 == 0 for a in found[:-1] if a.size)


def test_a_loaded_array_may_be_changed(saved: ArtifactStore) -> None:
    """The blob stays unchanged, whether it is small or mapped."""
    for size in (10, 1000, 1_000_000):
        ref = saved.save(np.zeros(size), "a")
        first = saved.load(ref, "a")
        first[0] = 5
        assert saved.load(ref, "a")[0] == 0


@dataclass
class Point:
    x: float
    y: float = 2.0


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    "value",
    [
        Point(1.0), Pair(1, 2), collections.OrderedDict(b=1, a=2), collections.defaultdict(list, a=[1]),
        collections.deque([1, 2], maxlen=3), dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), range(5),
        Path("/a/ü"), slice(1, 2), ..., NotImplemented, 10**5000, "\ud800 lone", "a\0b", b"\xff" * 5000, Point,
        len, np.float64(1.5), np.datetime64("2026-01-01"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_of_many_types_come_back(saved: ArtifactStore, value: Any) -> None:
    """Their references have the right type."""
    ref = saved.save(value, "value")
    assert saved.load(ref, "value") == value
    assert ref.type == f"{type(value).__module__}.{type(value).__qualname__}"


def test_shared_and_circular_references_stay(saved: ArtifactStore) -> None:
    """pickle preserves them."""
    shared: list[Any] = []
    value: dict[str, Any] = {"a": shared, "b": shared}
    value["self"] = value
    found = saved.load(saved.save(value, "value"), "value")
    assert found["a"] is found["b"]
    assert found["self"] is found


def test_lambdas_and_local_classes_are_pickled_by_value(saved: ArtifactStore) -> None:
    """Closures are included, with arrays out of band."""
    factor = np.arange(1000)

    class Local:
        def twice(self) -> int:
            return 2

    found = saved.load(saved.save({"f": lambda x: x * factor, "c": Local()}, "value"), "value")
    assert np.array_equal(found["f"](2), factor * 2)
    assert found["c"].twice() == 2


@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (threading.Lock(), ""),
        ({"model": 1, "lock": threading.Lock()}, "['lock']"),
        ([1, 2, threading.Lock()], "[2]"),
        (collections.OrderedDict(a=threading.Lock()), "['a']"),
        ((x for x in []), ""),
    ],
    ids=["lock", "dict", "list", "ordered", "generator"],
)
def test_an_unpicklable_part_is_named(saved: ArtifactStore, value: Any, culprit: str) -> None:
    """The error has the artifact, its type, the part, and advice."""
    with pytest.raises(ArtifactError) as caught:
        saved.save(value, "my_model")
    text = str(caught.value)
    assert "'my_model'" in text
    assert type(value).__qualname__ in text
    assert culprit in text
    assert "del self.my_model" in text


def test_a_value_that_is_too_deep_is_reported(saved: ArtifactStore) -> None:
    """pickle's recursion error doesn't crash the task."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ArtifactError, match="'deep'"):
        saved.save(deep, "deep")
    while deep:  # so that nothing recurses when it is freed
        deep = deep[0]


def test_equal_content_is_one_blob(store: ObjectStore) -> None:
    """The task and the artifact's name don't matter."""
    saved = ArtifactStore(store, "F")
    first, second = saved.save(b"x" * 10_000, "a"), saved.save(b"x" * 10_000, "b")
    assert first == second
    assert list(store.list_keys("F/")) == [blob_key("F", first.blob)]


def test_small_values_need_no_object(store: ObjectStore) -> None:
    """They are part of the commit."""
    saved = ArtifactStore(store, "F")
    ref = saved.save({"accuracy": 0.9}, "a")
    assert ref.inline is not None
    assert ArtifactRef.from_document(ref.to_document()) == ref
    assert saved.load(ref, "a") == {"accuracy": 0.9}
    assert list(store.list_keys("F/")) == []


def test_a_value_that_did_not_change_keeps_its_reference(saved: ArtifactStore) -> None:
    """The store is not read for it."""
    known = saved.save([1, 2, 3], "a")
    assert saved.save([1, 2, 3], "a", known) is known
    assert saved.save([1, 2, 4], "a", known) != known


class Bomb:
    """Records that it was unpickled."""

    went_off = False

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    Bomb.went_off = True


@pytest.mark.parametrize("damage", ["flip", "cut", "replace", "short"])
def test_damage_is_found_before_anything_is_unpickled(store: ObjectStore, damage: str) -> None:
    """Every kind of damage to a blob is found (I4)."""
    saved = ArtifactStore(store, "F")
    ref = saved.save(bytes(5000), "model")
    key = blob_key("F", ref.blob)
    data = bytearray(store.get(key))
    bomb = pickle.dumps(Bomb())
    damaged = {"flip": data[:-9] + b"\x01" + data[-8:], "cut": data[:-1], "replace": bomb, "short": b"\0"}[damage]
    store.put(key, [damaged])
    with pytest.raises(ArtifactError) as caught:
        saved.load(ref, "model")
    assert "'model' in" in str(caught.value)
    assert key in str(caught.value), "the error has to name the object to repair"
    assert not Bomb.went_off


def test_a_truncated_blob_is_written_again(store: ObjectStore) -> None:
    """The next task that saves the same content writes it."""
    saved = ArtifactStore(store, "F")
    ref = saved.save(bytes(5000), "model")
    data = bytes(store.get(blob_key("F", ref.blob)))
    store.put(blob_key("F", ref.blob), [data[:100]])
    assert saved.save(bytes(5000), "model") == ref
    assert saved.load(ref, "model") == bytes(5000)


def test_damage_to_an_inline_value_is_found(saved: ArtifactStore) -> None:
    """A commit may be damaged too."""
    ref = replace(saved.save(1, "a"), inline=saved.save(2, "a").inline)
    with pytest.raises(ArtifactError, match="damaged"):
        saved.load(ref, "a")
    with pytest.raises(ArtifactError, match="damaged"):
        saved.load(replace(ref, inline="no base64!"), "a")


def test_a_missing_blob_is_reported(store: ObjectStore) -> None:
    """The error has its hash and the artifact's name."""
    ref = ArtifactRef("0" * 64, 5000, "pickle", "builtins.bytes")
    with pytest.raises(ArtifactError, match=r"'model'.*0000"):
        ArtifactStore(store, "F").load(ref, "model")


def test_an_unknown_encoding_asks_for_an_upgrade(saved: ArtifactStore) -> None:
    """A newer version may have written it."""
    ref = replace(saved.save(1, "a"), encoding="arrow")
    with pytest.raises(ArtifactError, match="upgrade"):
        saved.load(ref, "a")


def test_a_missing_class_is_reported(saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value needs code that this process doesn't have."""
    ref = saved.save(Point(1.0), "point")
    monkeypatch.delattr(f"{__name__}.Point")
    with pytest.raises(ArtifactError, match=r"'point' \(a .*Point\) can't be loaded"):
        saved.load(ref, "point")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=artifacts.INLINE_BYTES - 60, max_size=artifacts.INLINE_BYTES + 60))
def test_values_around_the_inline_limit_come_back(saved: ArtifactStore, value: bytes) -> None:
    """Values on both sides of the limit are tested."""
    ref = saved.save(value, "a")
    assert (ref.inline is None) == (ref.size > artifacts.INLINE_BYTES)
    assert saved.load(ref, "a") == value
