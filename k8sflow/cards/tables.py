"""Tables: rows of values and components, and frames of pandas, polars and Arrow."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from k8sflow.cards.base import Component, MetaflowCardComponent
from k8sflow.cards.frames import Frame, frame_of
from k8sflow.cards.markup import Html, joined, tag
from k8sflow.cards.pictures import picture_of
from k8sflow.cards.rendering import rendered
from k8sflow.cards.texts import shortened
from k8sflow.task.safe_repr import safe_repr

MOST_ROWS = 1_000
_TRUNCATED_ROWS = 100
_MOST_COLUMNS = 200
_LONGEST_CELL = 1_000


class Table(Component):
    """A table. The first thousand rows are shown; below them the number of all.

    Args:
        data: The rows, each a sequence of values or components; or a frame.
        headers: The titles of the columns.
        disable_updates: Kept for flows written for Metaflow.
    """

    def __init__(
        self,
        data: Any = None,
        headers: Sequence[Any] | None = None,
        disable_updates: bool = False,  # noqa: ARG002, FBT001, FBT002  as in Metaflow
    ) -> None:
        self._types: list[str] = []
        self._headers: list[str] = []
        self.update(data, headers)

    def update(self, data: Any = None, headers: Sequence[Any] | None = None) -> None:
        """Replaces the rows, and the titles too if they are given."""
        found = frame_of(data, MOST_ROWS)
        if found is not None:
            self._take(found)
            return
        self._types = []
        self._headers = self._headers if headers is None else [_text(each) for each in headers]
        self._rows, self._count = _rows(data if data is not None else ())
        self._columns = max([len(self._headers), *map(len, self._rows)], default=0)

    def _take(self, found: Frame) -> None:
        self._headers, self._types = found.headers, found.types
        self._rows, self._count = [[_cell(value) for value in row] for row in found.rows], found.count
        self._columns = found.columns

    @classmethod
    def from_dataframe(cls, dataframe: Any = None, truncate: bool = True) -> Table:  # noqa: FBT001, FBT002  as in Metaflow
        """A table of a frame of pandas, polars or Arrow.

        Args:
            dataframe: The frame.
            truncate: True for the first hundred rows, False for a thousand. Of anything else, the table says that
                it is not a frame, as Metaflow's does.
        """
        found = frame_of(dataframe, _TRUNCATED_ROWS if truncate else MOST_ROWS)
        if found is None:
            return cls(headers=[f"{type(dataframe).__name__} is not a frame of pandas, polars or Arrow"])
        table = cls()
        table._take(found)
        return table

    def render(self) -> Html:
        """The component as HTML."""
        types = self._types or [""] * len(self._headers)
        titles = [
            tag("th", title, tag("span", kind, class_="type") if kind else None, scope="col")
            for title, kind in zip(self._headers, types, strict=False)
        ]
        head = tag("thead", tag("tr", *titles)) if titles else None
        body = tag("tbody", *(tag("tr", *map(_td, row)) for row in self._rows))
        table = tag("div", tag("table", head, body), class_="scroll", tabindex="0")
        return tag("div", table, self._note(), class_="table")

    def _note(self) -> Html | None:
        parts = []
        if self._count > len(self._rows):
            parts.append(f"{len(self._rows):,} of {self._count:,} rows")
        elif not self._rows:
            parts.append("No rows.")
        if self._columns > _MOST_COLUMNS:
            parts.append(f"{_MOST_COLUMNS:,} of {self._columns:,} columns")
        return tag("p", ", ".join(parts), class_="muted") if parts else None


def _rows(data: Any) -> tuple[list[list[Any]], int]:
    """The first rows, ready to be shown, and the number of all."""
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        return [[_cell(data)]], 1
    given: Any = data if hasattr(data, "__len__") else list(data)
    rows = [[_cell(value) for value in islice(_values(row), _MOST_COLUMNS)] for row in islice(given, MOST_ROWS)]
    return [row for row in rows if row] if len(rows) == 1 else rows, len(given) if any(rows) else 0


def _values(row: Any) -> Iterable[Any]:
    if isinstance(row, dict):
        return row.values()
    if isinstance(row, str | bytes | MetaflowCardComponent) or not isinstance(row, Iterable):
        return (row,)
    return row


def _cell(value: Any) -> Any:
    """A cell as it is kept: a component, or a text with the mark of a number."""
    if isinstance(value, MetaflowCardComponent):
        return value
    if isinstance(value, str):
        return shortened(value, _LONGEST_CELL)
    if isinstance(value, numbers.Number) and value is not True and value is not False:
        return _Number(shortened(_text(value), _LONGEST_CELL))
    found = picture_of(value)
    return found if found is not None else shortened(_text(value), _LONGEST_CELL)


class _Number(str):
    """The text of a number."""

    __slots__ = ()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Number) and callable(item := getattr(value, "item", None)):
        return safe_repr(item())  # numpy's float64(1.5) is 1.5
    return safe_repr(value)


def _td(cell: Any) -> Html:
    if isinstance(cell, MetaflowCardComponent):
        return tag("td", rendered(cell))
    return tag("td", cell, class_="number" if isinstance(cell, _Number) else None)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """A table of names and values, without those that are empty."""
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in pairs if value not in {None, ""}
    ]
    return tag("table", joined(rows), class_="facts") if rows else Html("")
