"""How results are printed: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import reprlib
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import click

from k8sflow.task.result import escaped

# Converting takes the square of their number.
_MOST_DIGITS = 100_000

JSON_OPTION = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs.")


def print_json(document: Any) -> None:
    """Prints a document that a program reads."""
    click.echo(escaped(json.dumps(document, indent=2, ensure_ascii=False)).encode())


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


def shown(value: object) -> str:
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


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows below their heads; on a terminal the last column is cut where it would not fit."""
    import shutil  # noqa: PLC0415  few commands print a table

    from k8sflow.drawing.text import width  # noqa: PLC0415

    columns = [max(width(row[index]) for row in [head, *rows]) for index in range(len(head))]
    room = shutil.get_terminal_size().columns - sum(columns[:-1]) - 2 * (len(columns) - 1)
    for number, row in enumerate([head, *rows]):
        last = row[-1]
        if sys.stdout is not None and sys.stdout.isatty() and width(last) > max(room, 10):
            last = last[: max(room, 10) - 1] + "…"
        cells = [cell + " " * (columns[index] - width(cell)) for index, cell in enumerate(row[:-1])]
        line = "  ".join([*cells, last]).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)


def utc_time(moment: datetime | None) -> str | None:
    """A moment as programs write it (RFC 3339), to the millisecond."""
    if moment is None:
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def duration(seconds: float) -> str:
    """A length of time in the units that matter."""
    if seconds < 60:  # noqa: PLR2004  seconds in a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: int) -> str:
    """A number of bytes in the unit that matters."""
    if count < 1000:  # noqa: PLR2004  as the units say
        return f"{count} B"
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
