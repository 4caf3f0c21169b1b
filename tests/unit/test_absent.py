"""Names of Metaflow that k8sflow doesn't have."""

from __future__ import annotations

import pytest

import k8sflow
from k8sflow import absent


@pytest.mark.parametrize("name", sorted(absent._INSTEAD))
def test_importing_one_says_what_to_use(name: str) -> None:
    with pytest.raises(ImportError, match=rf"^k8sflow has no {name}, which Metaflow has\. \S"):
        exec(f"from k8sflow import {name}", {})
    assert name not in k8sflow.__all__


def test_another_name_is_pythons_own_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from k8sflow import nonsense", {})
    assert not hasattr(k8sflow, "nonsense")
