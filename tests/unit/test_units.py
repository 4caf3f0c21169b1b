"""Amounts as people read them."""

from __future__ import annotations

import pytest

from k8sflow import units


@pytest.mark.parametrize(
    ("count", "expected"),
    [(999, "999 B"), (1500, "1.5 kB"), (16_384_000_000, "16.4 GB"), (2 * 10**12, "2.0 TB"), (10**16, "10000.0 TB")],
)
def test_sizes_are_in_the_largest_unit_below_them(count: int, expected: str) -> None:
    assert units.size(count) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(15.3, "15 s"), (119, "119 s"), (120, "2 min"), (610, "10 min")])
def test_rough_durations_are_in_one_unit(seconds: float, expected: str) -> None:
    assert units.rough_duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.2, "4.2 s"), (200, "3 min 20 s"), (3599.9, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations_are_in_the_two_units_that_matter(seconds: float, expected: str) -> None:
    assert units.duration(seconds) == expected
