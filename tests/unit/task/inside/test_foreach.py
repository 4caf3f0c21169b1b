"""``foreach`` in a step: what it takes, what each branch gets, and its position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.inprocess import Failed, run_source

FOREACH = """
    import numpy as np
    class F(FlowSpec):
        @step
        def start(self):
            self.items = {items}
            self.next(self.work, foreach="items")
        @step
        def work(self):
            self.seen = self.input
            self.at = (self.index, self.foreach_stack())
            self.next(self.join)
        @step
        def join(self, inputs):
            self.all = [i.seen for i in inputs]
            self.ats = [i.at for i in inputs]
            self.branch = [(i.index, i.input) for i in inputs]
            self.own = (self.index, self.input, self.foreach_stack())
            self.count = len(inputs)
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("[3, 1, 2]", [3, 1, 2]),
        ("(1, 'a', None)", [1, "a", None]),
        ("range(3)", [0, 1, 2]),
        ("'añ🦆'", ["a", "ñ", "🦆"]),
        ("{'b': 1, 'a': 2}", ["b", "a"]),
        ("{7}", [7]),
        ("(x * x for x in range(4))", [0, 1, 4, 9]),
        ("map(str, range(2))", ["0", "1"]),
        ("{'a': 1}.items()", [("a", 1)]),
        ("{'a': 1}.values()", [1]),
        ("zip('ab', range(2))", [("a", 0), ("b", 1)]),
        ("b'ab'", [97, 98]),
        ("[['x'] * 200_000, [], 'y' * 3_000_000]", [["x"] * 200_000, [], "y" * 3_000_000]),
        ("[None]", [None]),
        ("[]", []),
        ("iter(())", []),
        ("{}", []),
    ],
    ids=lambda value: str(value)[:30],
)
def test_foreach_takes_anything_iterable(tmp_path: Path, items: str, expected: list[Any]) -> None:
    """One branch per item, in order; the join sees them in order, and knows its own place."""
    data = run_source(tmp_path, FOREACH.replace("{items}", items)).data
    assert data is not None
    assert data.all == expected
    assert data.count == len(expected)
    assert data.ats == [(i, [(i, len(expected), item)]) for i, item in enumerate(expected)]
    assert data.branch == list(enumerate(expected))
    assert data.own == (None, None, [])


def test_foreach_over_an_array_gives_its_rows(tmp_path: Path) -> None:
    """Arrays of one and of two dimensions."""
    data = run_source(tmp_path, FOREACH.replace("{items}", "np.arange(6).reshape(3, 2)")).data
    assert data is not None
    assert np.array_equal(data.all, np.arange(6).reshape(3, 2))


@pytest.mark.parametrize("items", ["5", "None", "np.array(1)", "print"])
def test_foreach_over_a_value_without_items_is_reported(tmp_path: Path, items: str) -> None:
    """With the attribute and its type."""
    with pytest.raises(Failed, match=r"over self\.items, which is (an? .*|None) and has no items"):
        run_source(tmp_path, FOREACH.replace("{items}", items))


def test_a_generator_that_fails_is_not_taken_for_one_without_items(tmp_path: Path) -> None:
    """Its own error counts."""
    with pytest.raises(Failed) as failed:
        run_source(tmp_path, FOREACH.replace("{items}", "(len(x) for x in [1])"))
    assert "object of type 'int' has no len()" in failed.value.summary


def test_foreach_over_an_attribute_that_is_not_set_is_reported(tmp_path: Path) -> None:
    """The transition names it, where it could have been set in a way that the static check can't see."""
    with pytest.raises(Failed, match=r"self\.items is not set"):
        run_source(tmp_path, FOREACH.replace("self.items = {items}", "vars(self)"))


def test_branches_get_the_items_as_the_step_left_them(tmp_path: Path) -> None:
    """A generator can be read again afterwards; a change of the list in a branch is that branch's own."""
    data = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.items = (x for x in "ab")
                self.next(self.work, foreach="items")
            @step
            def work(self):
                self.items.append(self.input)
                self.next(self.join)
            @step
            def join(self, inputs):
                self.all = [i.items for i in inputs]
                self.next(self.end)
            @step
            def end(self): pass
        """,
    ).data
    assert data is not None
    assert data.all == [["a", "b", "a"], ["a", "b", "b"]]


def test_nested_foreach_and_branches_know_where_they_are(tmp_path: Path) -> None:
    """A foreach in a branch in a foreach, some of them empty."""
    run = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.outer = ["a", "b", "c"]
                self.next(self.each, foreach="outer")
            @step
            def each(self):
                self.next(self.left, self.right)
            @step
            def left(self):
                self.inner = list(range(self.index))
                self.next(self.cell, foreach="inner")
            @step
            def cell(self):
                self.got = (self.input, self.index, self.foreach_stack())
                self.next(self.cells)
            @step
            def cells(self, inputs):
                self.got = [i.got for i in inputs]
                self.stack = self.foreach_stack()
                self.next(self.both)
            @step
            def right(self):
                self.letter = self.input
                self.next(self.both)
            @step
            def both(self, inputs):
                self.got = (inputs.right.letter, inputs.cells.got, inputs[0].stack, inputs[-1].letter, self.input)
                self.next(self.all)
            @step
            def all(self, inputs):
                self.got = [i.got for i in inputs]
                self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    a, b, c = run.data.got  # type: ignore[union-attr]
    assert a == ("a", [], [(0, 3, "a")], "a", "a")
    assert b == ("b", [(0, 0, [(1, 3, "b"), (0, 1, 0)])], [(1, 3, "b")], "b", "b")
    assert [cell[0] for cell in c[1]] == [0, 1]
    assert [task.id for task in run["cell"]] == ["2.1", "2.0", "1.0"]
    assert [task.id for task in run["cells"]] == ["2", "1", "0"]
    assert [task.index for task in run["cell"]] == [1, 0, 0]


INDEXED = """
    class Images:
        def __init__(self, *names): self.names = dict(enumerate(names))
        def __len__(self): return len(self.names)
        def __getitem__(self, index): return {item}
    class Grid(Images):
        def __getitem__(self, index): return index % 2
        def __len__(self): return 3
    class F(FlowSpec):
        @step
        def start(self):
            self.images = {value}
            self.next(self.branch, foreach="images")
        @step
        def branch(self):
            self.got = self.input
            self.next(self.join)
        @step
        def join(self, inputs):
            self.all = [i.got for i in inputs]
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    ("value", "items"),
    [('Images("a", "b", "c")', ["a", "b", "c"]), ("Grid()", [0, 1, 0]), ("Images()", [])],
)
def test_a_foreach_goes_over_indexes(tmp_path: Path, value: str, items: list[object]) -> None:
    """From 0 to the length, whether or not the object raises at its end."""
    run = run_source(tmp_path, INDEXED.format(item="self.names[index]", value=value))
    assert run["end"].task.data.all == items


@pytest.mark.parametrize("item", ["{'x': 1}[index]", "[][index]", "self.missing"])
def test_an_index_without_an_item_is_a_clear_error(tmp_path: Path, item: str) -> None:
    """It names the class, the index and what the object raised."""
    with pytest.raises(Failed, match=r"an? Images of length 1 gave no item 0: (Key|Index|Attribute)Error"):
        run_source(tmp_path, INDEXED.format(item=item, value='Images("a")'))
