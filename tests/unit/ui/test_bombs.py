"""Pickles of some bytes that stand for values which no memory holds, and values that claim to be what they are not."""

from __future__ import annotations

import pickle
import struct
from contextlib import suppress
from typing import Any

import pytest

from k8sflow.cards.markup import Html
from k8sflow.errors import ArtifactError
from k8sflow.task.safe_repr import safe_repr
from k8sflow.ui.plain import read_plain
from k8sflow.ui.values import shown

_MOST_LETTERS = 40_000_000


def _nested() -> Any:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value, value]
    return value


def _endless() -> Any:
    value: list[Any] = []
    value.extend([value] * 4)
    return value


def _key_of_tuples() -> bytes:
    """A dict whose key is a tuple of the same tuple twice, and so on: its hash would take 2^60 steps."""
    return b"\x80\x04}(N\x85" + b"2\x86" * 60 + b"Nu."


def _long_number_again_and_again() -> bytes:
    return b"\x80\x04](\x8b" + struct.pack("<I", 1_000_000) + b"\x7f" * 1_000_000 + b"2" * 20_000 + b"e."


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(_nested()),
        pickle.dumps(_endless()),
        pickle.dumps({"key": (_endless(),)}),
        pickle.dumps(["x" * 1_000_000] * 50_000),
        pickle.dumps([b"x" * 1_000_000] * 50_000),
        _key_of_tuples(),
        _long_number_again_and_again(),
    ],
    ids=["nested", "endless", "in-a-tuple", "text", "bytes", "key", "number"],
)
def test_a_bomb_is_cut_short(data: bytes):
    """Neither the line about it nor its page is larger than what a browser can show."""
    value = read_plain(data, "pickle")
    assert len(safe_repr(value)) < _MOST_LETTERS
    assert len(shown(value)) < _MOST_LETTERS


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x04](" + b"".join(b"cm\n%x\n" % number for number in range(50_000)) + b"e.",
    ],
    ids=["bytearray", "classes"],
)
def test_a_pickle_that_asks_for_memory_is_refused(data: bytes):
    with pytest.raises(ArtifactError):
        read_plain(data, "pickle")


def test_ordinary_values_are_whole():
    """Also those that share their parts, as a table's rows share the names of its columns."""
    rows = [{"city": "Oslo", "number": number, ("a", 1): {number, "x"}} for number in range(5_000)]
    assert [row["number"] for row in read_plain(pickle.dumps(rows), "pickle")] == list(range(5_000))
    for value in (list(range(300_000)), "x" * 1_900_000, {(1, 2): [3, (4, 5)]}, 2**9_000, [None] * 100):
        assert safe_repr(read_plain(pickle.dumps(value), "pickle")) == safe_repr(_as_lists(value))


def _as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_lists(each) for each in value]
    if isinstance(value, dict):
        return {repr(_as_lists(key)): _as_lists(each) for key, each in value.items()}
    return value


@pytest.mark.parametrize("shape", ["K\x05", "(\x8c\x01xt", "(J\xff\xff\xff\xfft", "(G?\xf0\0\0\0\0\0\0t", "(t", "N"])
def test_an_array_of_a_wrong_shape_is_an_object(shape: str):
    """Its parts are shown, or an error says why they can't be."""
    code = shape.encode("latin-1")
    dtype = b"cnumpy\ndtype\n\x8c\x02f8\x85R"
    data = b"\x80\x04cnumpy.core.numeric\n_frombuffer\n(C\x08aaaaaaaa" + dtype + code + b"\x8c\x01CtR."
    with suppress(ArtifactError):  # or another error
        assert isinstance(shown(read_plain(data, "pickle")), Html)
