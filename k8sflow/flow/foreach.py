"""The items of a foreach, from any iterable that the user set on ``self``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from k8sflow.articles import described
from k8sflow.errors import RunError

# How many branches a foreach may open by default: more than a sane flow has, and an end for an endless generator.
MAX_NUM_SPLITS = 1_000_000


# Attributes of tuples whose names a column may have too; the column is meant.
_TUPLE_METHODS = ("count", "index")
# The methods that an object of a length and indexes has, and the one that it lacks.
_MAP_STYLE = {"__len__": True, "__getitem__": True, "__iter__": False}


class Row(tuple[Any, ...]):  # noqa: SLOT001  a tuple of any length can't have slots
    """A row of a data frame: ``row.price``, ``row["price"]`` and ``row[0]`` are the same, each value of its own type.

    ``Index`` is the row's label, where the frame has labels.
    """

    columns: tuple[str, ...]
    Index: Any

    def __new__(cls, values: Iterable[Any], columns: Sequence[str] = (), label: Any = None) -> Row:  # noqa: PYI034
        """Makes a row of values, one for each column."""
        row = super().__new__(cls, values)
        row.columns, row.Index = tuple(columns), label
        return row

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self.columns:
            raise KeyError(key)
        return super().__getitem__(self.columns.index(key))

    def __getattribute__(self, name: str) -> Any:
        if name in _TUPLE_METHODS and name in self.columns:
            return self[name]
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "columns" or name not in self.columns:
            raise AttributeError(f"the row has no column {name!r}")
        return self[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (tuple(self), self.columns, self.Index)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in zip(self.columns, self, strict=True))})"


def items_of(value: Any) -> Iterator[Any]:
    """The items of a foreach: those that iterating gives, except for data frames, which give their rows.

    An object with ``__len__`` and ``__getitem__`` alone, such as a map-style data set, gives the items at its indexes.

    Raises:
        TypeError: There are none.
        RunError: It has no item at an index below its length.
    """
    columns = getattr(value, "columns", None)
    if columns is not None and callable(getattr(value, "itertuples", None)):  # pandas and similar libraries
        names = tuple(map(str, columns))
        return (Row(values, names, label) for label, *values in value.itertuples(index=True, name=None))
    if columns is not None and callable(getattr(value, "iter_rows", None)):  # polars
        names = tuple(map(str, columns))
        return (Row(values, names, position) for position, values in enumerate(value.iter_rows()))
    if callable(getattr(value, "itercolumns", None)) and hasattr(value, "schema"):  # tables of Arrow
        names = tuple(map(str, value.schema.names))
        rows = zip(*(column.to_pylist() for column in value.itercolumns()), strict=True)
        return (Row(values, names, position) for position, values in enumerate(rows))
    if all(hasattr(type(value), name) == has for name, has in _MAP_STYLE.items()):
        return _by_index(value)
    return iter(value)


def _by_index(value: Any) -> Iterator[Any]:
    length = len(value)
    for index in range(length):
        try:
            yield value[index]
        except Exception as error:  # it is the user's code
            raise RunError(
                f"{described(value)} of length {length} gave no item {index}: {type(error).__name__}: {error}",
                cause="It has no __iter__, so its items are those at the indexes from 0 to its length.",
                advice="Give it an __iter__, or set the attribute to a list of its items.",
            ) from error
