"""A foreach over a data frame: a row for each branch."""

from __future__ import annotations

from collections import UserDict, UserList
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k8sflow.flow.foreach import Row
from tests.inprocess import run_source


class Frame(UserDict[str, list[Any]]):
    """The common interface of data frames and a dict of columns."""

    @property
    def columns(self) -> list[str]:
        return list(self.data)


class Pandas(Frame):
    def itertuples(self, *, index: bool, name: None) -> Any:
        assert index
        assert name is None
        yield from zip("pqr", *self.data.values(), strict=True)


class Polars(Frame):
    def iter_rows(self) -> Any:
        yield from zip(*self.data.values(), strict=True)


class Column(UserList[Any]):
    def to_pylist(self) -> list[Any]:
        return list(self)


class Arrow(Frame):
    """As Arrow's tables: ``columns`` are not names, the length is that of the rows, an index gives a column."""

    @property
    def columns(self) -> list[Any]:
        return list(map(Column, self.data.values()))

    @property
    def schema(self) -> Any:
        return SimpleNamespace(names=list(self.data))

    def itercolumns(self) -> Any:
        yield from self.columns


@pytest.mark.parametrize(("kind", "labels"), [("Pandas", ["p", "q", "r"]), ("Polars", [0, 1, 2]), ("Arrow", [0, 1, 2])])
def test_foreach_over_a_data_frame_gives_its_rows(tmp_path: Path, kind: str, labels: list[Any]) -> None:
    """Values by column and by position, each of its own type."""
    run = run_source(
        tmp_path,
        f"""
        from {__name__} import {kind}
        class F(FlowSpec):
            @step
            def start(self):
                self.frame = {kind}({{"n": [1, 2, 3], "share": [0.5, 1.0, 1.5], "a name": list("abc")}})
                self.next(self.work, foreach="frame")
            @step
            def work(self):
                row = self.input
                self.got = (row.n, row["share"], row["a name"], row[0], row.Index, type(row.n).__name__)
                self.next(self.join)
            @step
            def join(self, inputs):
                self.got = [i.got for i in inputs]
                self.rows = [i.input for i in inputs]
                self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    data = run.data
    assert data is not None
    assert data.got == [(i + 1, 0.5 * (i + 1), "abc"[i], i + 1, labels[i], "int") for i in range(3)]
    assert repr(data.rows[1]) == "Row(n=2, share=1.0, a name='b')"


def test_a_row_says_what_it_has_not() -> None:
    """As a dict and as an object would."""
    row = Row((1,), ("n",))
    with pytest.raises(KeyError, match="m"):
        row["m"]
    with pytest.raises(AttributeError, match="no column 'm'"):
        row.m  # noqa: B018
    assert row == (1,)


def test_a_column_is_found_under_any_name() -> None:
    """Also under one that a tuple has too."""
    row = Row((1, 2), ("count", "index"))
    assert (row.count, row.index, row["index"]) == (1, 2, 2)
    assert Row((1, 2), ("n", "m")).index(2) == 1
