"""Amounts of cores, memory and disk: accepted spellings, units, and values that make no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.base import Decoration
from k8sflow.flow.decorators.kubernetes import resources


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, "2"),
        (0.5, "500m"),
        ("500m", "500m"),
        ("2", "2"),
        (1.25, "1250m"),
        ("2.0", "2"),
        ("1500m", "1500m"),
        (0.001, "1m"),
    ],
)
def test_cores_are_numbers_or_quantities(value: object, expected: str) -> None:
    assert quantity.cpu(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4096, "4096M"),
        ("4096", "4096M"),
        (0.5e3, "500M"),
        (100.5, "100500k"),
        ("4Gi", "4Gi"),
        ("500M", "500M"),
        ("1e9", "1e9"),
        (60_000, "60000M"),
    ],
)
def test_a_plain_amount_is_megabytes(value: object, expected: str) -> None:
    assert quantity.size(value) == expected


def test_shared_memory_may_be_small() -> None:
    """It is a part of the memory; the same amount as the whole memory would be a mistake in the unit."""
    assert quantity.share(10) == "10M"
    with pytest.raises(ValueError, match="too little for a Python process"):
        quantity.size(10)
    resources.read(Decoration(resources, {"shared_memory": 10}))


@pytest.mark.parametrize(
    "value", [0, -1, "0", "-2", "two", "", True, None, [1], "1.0001m", "2 cores", float("nan"), float("inf")]
)
def test_nonsense_is_refused_as_a_number_of_cores(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        quantity.cpu(value)


@pytest.mark.parametrize("value", [0, -1, "0", "-4Gi", "4GB", "4 Gi", "lots", "", True, "500m", 8, "8", float("nan")])
def test_nonsense_is_refused_as_an_amount_of_memory(value: object) -> None:
    """8 MB and half a byte are Kubernetes quantities, but mistakes."""
    with pytest.raises(ValueError, match=r".+"):
        quantity.size(value)


@given(st.integers(1, 10**6))
def test_millicores_keep_their_value(millicores: int) -> None:
    assert quantity.parse(quantity.cpu(millicores / 1000)) * 1000 == millicores


@given(st.integers(16, 10**7))
def test_megabytes_keep_their_value(megabytes: int) -> None:
    assert quantity.parse(quantity.size(megabytes)) == megabytes * 10**6
