"""Common values of the standard library, from the parts that their pickles name: dates, durations, decimals, paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from typing import Any
from uuid import UUID

_LONGEST = 500
_DATE_BYTES, _TIME_BYTES = 4, 6


def text_of(name: str, arguments: tuple[Any, ...], state: Any) -> str | None:
    """The value as people write it; None if it is of another class, or not as its class pickles it.

    Args:
        name: The full name of its class.
        arguments: The arguments of its class; those that are such values themselves as texts.
        state: Its state.
    """
    if name not in _READERS:
        return None
    try:
        return _READERS[name](arguments, state)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError):
        return None


def _date(arguments: tuple[Any, ...], _: Any) -> str:
    (data,) = arguments
    return _date_of(_bytes(data, _DATE_BYTES)).isoformat()


def _date_of(data: bytes) -> date:
    return date(data[0] * 256 + data[1], data[2] & 0x7F, data[3])


def _time(arguments: tuple[Any, ...], _: Any) -> str:
    return f"{_time_of(_bytes(arguments[0], _TIME_BYTES)).isoformat()}{_zone(arguments)}"


def _time_of(data: bytes) -> time:
    return time(data[0] & 0x7F, data[1], data[2], int.from_bytes(data[3:6], "big"))


def _datetime(arguments: tuple[Any, ...], _: Any) -> str:
    data = _bytes(arguments[0], _DATE_BYTES + _TIME_BYTES)
    found = datetime.combine(_date_of(data[:_DATE_BYTES]), _time_of(data[_DATE_BYTES:]))
    return f"{found.isoformat(' ')}{_zone(arguments)}"


def _zone(arguments: tuple[Any, ...]) -> str:
    """The time zone that follows a time: an offset, a name, or nothing."""
    if len(arguments) < 2 or arguments[1] is None:  # noqa: PLR2004  the time, and its zone
        return ""
    return f" {_text(arguments[1])}"


def _bytes(data: Any, length: int) -> bytes:
    """The bytes of a date or a time; older protocols write them as text."""
    found = data.encode("latin-1") if isinstance(data, str) else bytes(memoryview(data))
    if len(found) != length:
        raise ValueError(length)
    return found


def _timedelta(arguments: tuple[Any, ...], _: Any) -> str:
    return str(timedelta(*_numbers(arguments, 3)))


def _timezone(arguments: tuple[Any, ...], _: Any) -> str:
    """The offset, from the text of a duration."""
    text = _text(arguments[0])
    days, _, clock = text.rpartition(", ")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    offset = timedelta(int(days.partition(" ")[0] or 0), hours=hours, minutes=minutes, seconds=seconds)
    return str(timezone(offset))


def _only_text(arguments: tuple[Any, ...], _: Any) -> str:
    return _text(arguments[0])


def _uuid(_: tuple[Any, ...], state: Any) -> str:
    if not isinstance(state, Mapping):
        raise TypeError
    return str(UUID(int=state["int"]))


def _path(arguments: tuple[Any, ...], _: Any) -> str:
    parts = [_text(each) for each in arguments]
    return "/".join(parts).replace("//", "/", 1) if parts else "."


def _complex(arguments: tuple[Any, ...], _: Any) -> str:
    real, imaginary = arguments
    if not all(isinstance(each, int | float) for each in (real, imaginary)):
        raise TypeError
    return str(complex(real, imaginary))


def _range(arguments: tuple[Any, ...], _: Any) -> str:
    return f"range({', '.join(str(each) for each in _numbers(arguments, 3))})"


def _numbers(arguments: tuple[Any, ...], count: int) -> list[int]:
    found = list(arguments)
    if len(found) != count or not all(isinstance(each, int) and each.bit_length() < 64 for each in found):  # noqa: PLR2004
        raise ValueError(count)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise TypeError
    return value


_READERS: dict[str, Callable[[tuple[Any, ...], Any], str]] = {
    "builtins.complex": _complex,
    "builtins.range": _range,
    "datetime.date": _date,
    "datetime.datetime": _datetime,
    "datetime.time": _time,
    "datetime.timedelta": _timedelta,
    "datetime.timezone": _timezone,
    "decimal.Decimal": _only_text,
    "pathlib.PosixPath": _path,
    "pathlib.PurePosixPath": _path,
    "pathlib._local.PosixPath": _path,
    "uuid.UUID": _uuid,
    "zoneinfo.ZoneInfo._unpickle": _only_text,
}
