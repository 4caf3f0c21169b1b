"""Values of classes that existed before the call come back as objects of the same classes."""

from __future__ import annotations

import collections
import dataclasses
import enum
import gc
import types
import typing
from typing import Any

import pytest

from k8sflow.parallel import Backend, parallel_imap, parallel_map


class Kinds:
    """Classes without a name in any module."""

    def __init__(self) -> None:
        @dataclasses.dataclass(frozen=True)
        class Row:
            x: Any

        class Color(enum.Enum):
            RED = 1
            BLUE = ("b", 2)

        class Mode(enum.IntFlag):
            READ = 1
            WRITE = 2

        class Typed(typing.NamedTuple):
            a: int
            b: object

        class Slots:
            __slots__ = ("x",)

            def __init__(self, x: object) -> None:
                self.x = x

        self.row, self.color, self.mode, self.typed, self.slots = Row, Color, Mode, Typed, Slots
        self.pair: Any = collections.namedtuple("Pair", "a b")  # noqa: PYI024
        self.made = types.new_class("Made", (Row,))


@pytest.mark.parametrize("backend", ["fork", "spawn", "threads"])
def test_values_of_local_classes_keep_them(backend: Backend) -> None:
    kinds = Kinds()
    row, color, mode = kinds.row, kinds.color, kinds.mode

    def make(i: int) -> list[Any]:
        return [row({color.RED: i}), kinds.pair(i, color.BLUE), kinds.typed(i, mode.READ | mode.WRITE), kinds.made(i)]

    expected = [make(i) for i in range(4)]
    for call in (parallel_map, parallel_imap):
        results = list(call(make, range(4), 2, backend=backend))
        assert results == expected
        for left, right in zip(results, expected, strict=True):
            assert list(map(type, left)) == list(map(type, right))
            assert next(iter(left[0].x)) is color.RED
            assert left[1].b is color.BLUE


@pytest.mark.parametrize("backend", ["fork", "spawn"])
def test_classes_and_what_refers_to_them_are_the_callers(backend: Backend) -> None:
    kinds = Kinds()
    row, color = kinds.row, kinds.color
    kind, member, make = parallel_map(lambda _: (row, color.RED, lambda: row(color.BLUE)), [0], backend=backend)[0]
    assert kind is row
    assert member is color.RED
    assert isinstance(make(), row)
    assert make().x is color.BLUE


@pytest.mark.parametrize("backend", ["fork", "spawn"])
def test_items_of_an_iterator_keep_their_classes(backend: Backend) -> None:
    kinds = Kinds()
    items = [kinds.made(kinds.color.RED), kinds.row(kinds.row)]
    results = parallel_map(lambda item: item, iter(items), 2, backend=backend)
    assert results == items
    assert [type(result) for result in results] == [kinds.made, kinds.row]
    assert results[0].x is kinds.color.RED


def test_a_class_with_slots_too() -> None:
    slots = Kinds().slots
    results = parallel_map(slots, range(2))
    assert [(type(result), result.x) for result in results] == [(slots, 0), (slots, 1)]


@pytest.mark.parametrize("backend", ["fork", "spawn"])
def test_a_class_that_the_function_makes_is_the_results_own(backend: Backend) -> None:
    def make(i: int) -> Any:
        base = Kinds().row
        return base(i), dataclasses.make_dataclass("Late", ["x"], bases=(Kinds().slots,))(i)

    gc.collect()
    for i, (row, late) in enumerate(parallel_map(make, range(3), 2, backend=backend)):
        assert (row.x, late.x) == (i, i)


def test_an_exception_keeps_what_it_holds_of_local_classes() -> None:
    kinds = Kinds()

    class Refusal(ValueError):
        pass

    def refuse(i: int) -> None:
        raise Refusal(kinds.row(i), kinds.color.RED)

    with pytest.raises(Refusal) as caught:
        parallel_map(refuse, [7])
    assert caught.value.args == (kinds.row(7), kinds.color.RED)


def test_nested_calls_keep_them_too() -> None:
    row = Kinds().row
    results = parallel_map(lambda i: parallel_map(row, range(i, i + 2), 2), range(2), 2)
    assert results == [[row(0), row(1)], [row(1), row(2)]]
