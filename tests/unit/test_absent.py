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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("from k8sflow.flowspec import FlowStateItems", "k8sflow has no FlowStateItems in k8sflow.flowspec, where Met"),
        ("from k8sflow.plugins.argo import argo_client", "k8sflow has no argo_client in k8sflow.plugins.argo, where"),
        ("import k8sflow.plugins.argo.argo_client", "k8sflow has no argo_client in k8sflow.plugins.argo, where"),
        ("from k8sflow.cards import Picture", "k8sflow has no Picture in k8sflow.cards, where Metaflow may have it"),
        ("from k8sflow.util import package_sources", "k8sflow has no package_sources, which Metaflow has"),
    ],
)
def test_a_name_of_one_of_metaflows_modules_says_where_to_look(line: str, words: str) -> None:
    with pytest.raises(ImportError, match=words):
        exec(line, {})
