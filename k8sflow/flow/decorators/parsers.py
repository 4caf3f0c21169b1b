"""Parsers of options that several decorators share.

Each takes what a user wrote, in Python or as text after ``--with``, and raises ValueError for what can't be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class SecretValueError(ValueError):
    """A value that can't be used, and must not be shown."""


_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def text(value: object) -> str:
    """A string that is not empty, without the blanks around it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a string with content")
    return value.strip()


def count(value: object) -> int:
    """A whole number of zero or more."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of zero or more")
    return value


def amount(value: object) -> float:
    """A finite number of zero or more."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"{value!r} is not a number of zero or more")
    return found


def flag(value: object) -> bool:
    """A yes or no."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in _FLAGS:
        raise ValueError(f"{value!r} is neither True nor False")
    return _FLAGS[value.strip().lower()]


def listed(value: object, what: str) -> Sequence[Any]:
    """The items of a list, or those of a text with commas.

    Args:
        value: What the user wrote.
        what: The items, for the error.
    """
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of {what}")  # noqa: TRY004  callers expect one kind of error
    return value


def table(value: object) -> dict[str, Any]:
    """A dictionary."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a dictionary")  # noqa: TRY004  callers expect one kind of error
    return dict(value)
