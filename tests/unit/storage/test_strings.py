"""Arrays of strings: stored as distinct strings and numbers where that is exact, by pickle otherwise."""

from __future__ import annotations

import copyreg
import math
import pickle
import struct
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8sflow.storage import strings
from k8sflow.storage.encoding import encode, stored
from k8sflow.storage.strings import reduce_array

ANY_TEXT = st.text(st.characters(codec=None), max_size=4)  # with lone surrogates too
MISSING = st.sampled_from([None, math.nan, pd.NA])
OTHERS = st.one_of(st.integers(), st.floats(), st.booleans(), st.binary(max_size=2), st.just(np.str_("a")))
SHAPES = st.sampled_from([(12,), (3, 4), (2, 3, 2), (12, 1), (0,), ()])


def _through(value: Any) -> Any:
    found = encode(value, "a")
    return stored(bytearray(b"".join(found.parts)), found.name).load()


def _key(value: object) -> object:
    """A value that is equal only if type and content are."""
    return (type(value), struct.pack("<d", value) if isinstance(value, float) else str(value))


def _is_left_to_pickle(array: Any) -> bool:
    return reduce_array(array)[0] is not strings.array_of_strings


@pytest.fixture(autouse=True)
def _small_arrays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "_LEAST_ELEMENTS", 0)
    monkeypatch.setattr(strings, "_MOST_DISTINCT_OF_SAMPLE", 1)
    monkeypatch.setattr(strings, "_MOST_DISTINCT", 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data(), SHAPES, st.sampled_from("CF"))
def test_any_array_of_objects_comes_back_exactly(data: st.DataObject, shape: tuple[int, ...], order: Any) -> None:
    """Strings, missing values, and objects that only pickle can store, in any arrangement."""
    element = data.draw(st.sampled_from([ANY_TEXT, ANY_TEXT | MISSING, ANY_TEXT | MISSING | OTHERS]))
    count = math.prod(shape)
    values = np.empty(count, dtype=object)
    values[:] = data.draw(st.lists(element, min_size=count, max_size=count))
    array = np.asarray(values.reshape(shape), order=order)

    back, by_pickle = _through(array), pickle.loads(pickle.dumps(array, 5))

    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert [_key(value) for value in back.ravel()] == [_key(value) for value in array.ravel()]
    assert str(back.flags) == str(by_pickle.flags)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ANY_TEXT | st.none(), min_size=1, max_size=30), st.sampled_from(["str", "string", "category", object]))
def test_a_data_frame_of_any_kind_of_strings_comes_back_exactly(values: list[str | None], dtype: Any) -> None:
    """The index, its name, the types of the columns, the attributes and the flags are pandas' own business."""
    if dtype is not object:
        values = [value and value.encode("utf-8", "replace").decode() for value in values]
    index = pd.Index(range(7, 7 + len(values)), name="id")
    frame = pd.DataFrame({"a": pd.Series(values, dtype=dtype, index=index), "b": range(len(values))}, index=index)
    frame.attrs["source"] = "here"
    frame = frame.set_flags(allows_duplicate_labels=False)

    back, by_pickle = _through(frame), pickle.loads(pickle.dumps(frame, 5))

    pd.testing.assert_frame_equal(back, by_pickle, check_exact=True, check_index_type="exact", check_freq=True)
    assert (back.attrs, back.flags) == (by_pickle.attrs, by_pickle.flags)
    assert [_key(value) for value in back["a"]] == [_key(value) for value in frame["a"]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(max_size=3), max_size=30))
def test_a_polars_frame_comes_back(values: list[str]) -> None:
    frame = pl.DataFrame({"a": pl.Series(values, dtype=pl.String), "b": pl.Series(range(len(values)), dtype=pl.Int64)})

    assert _through(frame).equals(frame)


def test_a_column_of_the_same_strings_is_small() -> None:
    column = np.array(["one", "two", None] * 1000, dtype=object)

    assert encode(column, "a").size < 3 * 1000 + 500


def test_a_loaded_column_can_be_changed() -> None:
    back = _through(pd.DataFrame({"a": ["one", "two"] * 1000}))
    back.loc[0, "a"] = "three"

    assert back["a"].tolist()[:3] == ["three", "two", "one"]


def test_the_same_column_has_the_same_bytes_after_loading() -> None:
    """So a step that only reads it writes nothing."""
    frame = pd.DataFrame({"a": ["one", "two", "three"] * 1000})

    assert encode(_through(_through(frame)), "a").blob == encode(_through(frame), "a").blob


@pytest.mark.parametrize(
    "values",
    [
        ["a", np.str_("b")],
        ["a", 1.5],
        ["a", struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]],  # a NaN with a payload
        ["a", 1],
        ["a", ("b",)],
        ["a", b"b"],
    ],
)
def test_other_objects_are_left_to_pickle(values: list[Any]) -> None:
    array = np.empty(len(values) * 4, dtype=object)
    array[:] = values * 4

    assert _is_left_to_pickle(array)
    assert [_key(value) for value in _through(array)] == [_key(value) for value in array]


def test_distinct_strings_are_left_to_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    assert _is_left_to_pickle(np.array([f"id {number}" for number in range(5000)], dtype=object))
    assert not _is_left_to_pickle(np.array([f"id {number % 100}" for number in range(5000)], dtype=object))


def test_more_strings_than_fit_into_a_byte() -> None:
    for count in (255, 256, 257, 65_535, 65_536, 65_537):
        array = np.array([f"{number}" for number in range(count)] * 2, dtype=object)

        assert (_through(array) == array).all()


def test_strings_that_the_array_gets_elsewhere_are_found_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(strings.sys.modules, "pandas")
    array = np.array(["one", "two", None, math.nan] * 1000, dtype=object)

    assert not _is_left_to_pickle(array)
    assert [_key(value) for value in _through(array)] == [_key(value) for value in array]


@pytest.mark.parametrize(
    "strings",
    [["'\\ud800'", "\ud800"], ["\ud800", "'\\ud800'"], ["a", "a\0", "a\0b"], ["", "\0"], ["\ud800", "\udfff"]],
)
def test_strings_that_pandas_takes_for_equal_stay_different(strings: list[str]) -> None:
    """It hashes them as UTF-8 that ends at a NUL, and takes a lone surrogate for the text of its repr."""
    value = np.empty(len(strings) * 1000, dtype=object)
    value[:] = strings * 1000
    found = encode(value, "a")
    assert list(stored(b"".join(found.parts), found.name).load()) == strings * 1000


def test_a_reducer_that_the_user_registered_for_arrays_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    value = np.array(["a", "b"] * 1000, dtype=object)
    monkeypatch.setitem(copyreg.dispatch_table, np.ndarray, lambda array: (list, (array.tolist()[:3],)))
    assert encode(value, "a").load() == ["a", "b", "a"]
