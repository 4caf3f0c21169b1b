"""Dates, paths and the like, read from their pickles without their classes."""

from __future__ import annotations

import pickle
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from k8sflow.ui.plain import Part, read_plain
from k8sflow.ui.plain_values import text_of

ID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2026, 3, 1), "2026-03-01"),
        (datetime(2026, 3, 1, 12, 30, 5, 250_000), "2026-03-01 12:30:05.250000"),  # noqa: DTZ001  without a zone
        (datetime(2026, 3, 1, 12, tzinfo=timezone.utc), "2026-03-01 12:00:00 UTC"),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-5))), "2026-03-01 12:00:00 UTC-05:00"),
        (datetime(2026, 3, 1, 12, tzinfo=ZoneInfo("Europe/Oslo")), "2026-03-01 12:00:00 Europe/Oslo"),
        (time(12, 30), "12:30:00"),
        (timedelta(days=1, seconds=5), "1 day, 0:00:05"),
        (Decimal("1.50"), "1.50"),
        (PurePosixPath("/data/x"), "/data/x"),
        (PurePosixPath("data/x"), "data/x"),
        (ID, str(ID)),
        (1 + 2j, "(1+2j)"),
        (range(3), "range(0, 3, 1)"),
    ],
)
def test_values_are_shown_as_people_write_them(value: Any, text: str, protocol: int):
    data = pickle.dumps([value, {"at": value}], protocol=protocol)
    found = read_plain(data, "pickle")
    assert repr(found[0]) == text
    assert repr(found[1]["at"]) == text


@pytest.mark.parametrize(
    ("name", "arguments", "state"),
    [
        ("datetime.datetime", (b"short",), None),
        ("datetime.datetime", (b"\xff" * 10,), None),
        ("datetime.datetime", (b"\x07\xea\x03\x01\x0c\x00\x00\x00\x00\x00", "x" * 10_000), None),
        ("datetime.datetime", (b"\x07\xea\x03\x01\x0c\x00\x00\x00\x00\x00", Part()), None),
        ("datetime.date", (), None),
        ("datetime.date", (7,), None),
        ("datetime.timedelta", (10**30, 0, 0), None),
        ("datetime.timezone", ("nonsense",), None),
        ("decimal.Decimal", ("1" * 10_000,), None),
        ("uuid.UUID", (), None),
        ("uuid.UUID", (), {"int": -1}),
        ("builtins.range", (0, 1 << 100, 1), None),
        ("builtins.complex", ("1", "2"), None),
        ("pathlib.PosixPath", (7,), None),
        ("os.system", ("true",), None),
    ],
)
def test_what_no_class_would_pickle_has_no_text(name: str, arguments: tuple[Any, ...], state: Any):
    assert text_of(name, arguments, state) is None


class Shape:
    """A class whose values are made by a method, as pickle writes that of a nested class."""

    @classmethod
    def of(cls, sides: int) -> Shape:
        return cls()

    def __reduce__(self) -> tuple[Any, ...]:
        return Shape.of, (4,)


def test_a_value_that_a_method_makes_is_shown_by_its_name():
    found = read_plain(pickle.dumps({"shape": Shape(), "rest": 1}, protocol=5), "pickle")
    assert found == {"shape": {f"{__name__}.Shape.of": [4]}, "rest": 1}
