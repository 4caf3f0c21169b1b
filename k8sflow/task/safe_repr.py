"""A value for people: its repr, or what can be had of it where that fails."""

from __future__ import annotations

import contextlib
import reprlib
import sys
from collections.abc import Iterator
from typing import Any

# Converting takes the square of their number.
_MOST_DIGITS = 100_000


@contextlib.contextmanager
def long_numbers() -> Iterator[None]:
    """Lets whole numbers be shown that have more digits than Python converts by itself, up to a tenth of a second."""
    if not hasattr(sys, "set_int_max_str_digits"):  # Python 3.10 before its eighth release has no limit
        yield
        return
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(max(before, _MOST_DIGITS) if before else 0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def safe_repr(value: object) -> str:
    """The value's repr; where that fails, what can be shown of it and of its parts, with the reason for the rest."""
    with long_numbers():
        try:
            return repr(value)
        except (Exception, SystemExit):  # noqa: BLE001  the class is the user's code
            return _PARTS.repr(value)


class _Parts(reprlib.Repr):
    """Shows containers part by part, each as its class does where that works."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("list", "tuple", "set", "frozenset", "dict", "deque", "array", "string", "long", "other"):
            setattr(self, f"max{name}", sys.maxsize)
        self.maxlevel = 20

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002  reprlib's signature
        try:
            return repr(x)
        except (Exception, SystemExit) as error:  # noqa: BLE001  as above
            return f"<{type(x).__name__} whose repr raised {type(error).__name__}{_text_of(error)}>"

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002  as above
        try:
            return repr(x)
        except ValueError:
            return f"<int of {x.bit_length():,} bits>"


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except (Exception, SystemExit):  # noqa: BLE001  as above
        return ""
    return f": {text}" if text else ""


_PARTS = _Parts()
