"""The first rows of frames, read without importing the library that they are from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MOST_COLUMNS = 200


@dataclass(frozen=True)
class Frame:
    """The first rows of a frame.

    Args:
        headers: The titles of the columns.
        types: Their types.
        rows: The rows.
        count: The number of all rows.
        columns: The number of all columns.
    """

    headers: list[str]
    types: list[str]
    rows: list[list[Any]]
    count: int
    columns: int


def library_of(value: object) -> str:
    """The library from which a value's class is."""
    return type(value).__module__.partition(".")[0]


def frame_of(value: Any, most: int) -> Frame | None:
    """The first rows of a frame or a series of pandas, polars or Arrow; None if it is something else."""
    kind = (library_of(value), type(value).__name__)
    match kind:
        case ("pandas", "DataFrame"):
            return _pandas(value, most)
        case ("polars", "DataFrame"):
            return _polars(value, most)
        case ("polars", "LazyFrame"):
            found = _polars(value.head(most).collect(), most)
            return Frame(found.headers, found.types, found.rows, len(found.rows), found.columns)
        case ("pandas" | "polars", "Series"):
            return frame_of(value.to_frame(), most)
        case ("pyarrow", "Table" | "RecordBatch"):
            return _arrow(value, most)
    return None


def _pandas(frame: Any, most: int) -> Frame:
    shown = frame.iloc[:most, :_MOST_COLUMNS]
    headers = [_title(name) for name in shown.columns]
    types = [str(kind) for kind in shown.dtypes]
    rows = [list(row) for row in shown.itertuples(index=False, name=None)]
    if type(frame.index).__name__ != "RangeIndex":
        headers, types = [_title(frame.index.name or "index"), *headers], [str(frame.index.dtype), *types]
        rows = [[label, *row] for label, row in zip(shown.index, rows, strict=True)]
    return Frame(headers, types, rows, len(frame), frame.shape[1])


def _polars(frame: Any, most: int) -> Frame:
    shown = frame[:, :_MOST_COLUMNS].head(most) if frame.width > _MOST_COLUMNS else frame.head(most)
    types = [str(kind) for kind in shown.dtypes]
    return Frame(list(shown.columns), types, [list(row) for row in shown.rows()], frame.height, frame.width)


def _arrow(table: Any, most: int) -> Frame:
    shown = table.slice(0, most)
    names = list(shown.schema.names)[:_MOST_COLUMNS]
    columns: Sequence[Sequence[Any]] = [shown.column(index).to_pylist() for index in range(len(names))]
    rows = [list(row) for row in zip(*columns, strict=True)]
    types = [str(field.type) for field in shown.schema][:_MOST_COLUMNS]
    return Frame(names, types, rows, table.num_rows, table.num_columns)


def _title(name: object) -> str:
    return " / ".join(map(str, name)) if isinstance(name, tuple) else str(name)
