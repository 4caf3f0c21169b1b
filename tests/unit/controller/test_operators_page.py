"""docs/operators.md matches the chart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[3]
PAGE = (CHECKOUT / "docs" / "operators.md").read_text()
VALUES = yaml.safe_load((CHECKOUT / "charts/k8sflow/values.yaml").read_text())
INSTALL = [item for item in yaml.safe_load_all((CHECKOUT / "manifests/install.yaml").read_text()) if item]
# Related values share a row of the page, where the later ones are shortened.
ROWS = {
    ".nodeSelector": "controller.nodeSelector",
    ".tolerations": "controller.tolerations",
    ".memory": "driver.resources.memory",
}


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and path not in {"controller.resources", "ui.resources"}:
            yield from leaves(value, f"{path}.")
        else:
            yield path


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_table_lists_exactly_the_values_of_the_chart() -> None:
    listed = [name for row in table("Values") for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(ROWS.get(name, name) for name in listed) == sorted(leaves(VALUES))


def test_the_rights_in_the_table_are_those_of_the_roles() -> None:
    roles = {item["metadata"]["name"]: item["rules"] for item in INSTALL if item["kind"] == "Role"}
    listed = {re.findall(r"`([^`]+)`", row[0])[0]: row[1] for row in table("Rights")}
    for name in ("k8sflow-controller", "k8sflow-driver"):
        rules = ["/".join(rule["resources"]) + ": " + ", ".join(rule["verbs"]) for rule in roles[name]]
        assert sorted(listed[name].split("; ")) == sorted(rules)
    assert set(listed) == {*roles, "k8sflow-task"}


def test_only_the_crd_is_cluster_wide() -> None:
    kinds = {item["kind"] for item in INSTALL}
    assert not {kind for kind in kinds if kind.startswith("Cluster")}
    assert {"CustomResourceDefinition", "Deployment", "Role", "RoleBinding", "ServiceAccount", "Namespace"} == kinds


def test_tokens_of_service_accounts_are_mounted_only_if_they_are_used() -> None:
    mounts = {
        item["metadata"]["name"]: item.get("automountServiceAccountToken", True)
        for item in INSTALL
        if item["kind"] == "ServiceAccount"
    }
    # the controller's pod requests its token itself
    assert mounts == {"k8sflow-controller": False, "k8sflow-driver": True, "k8sflow-task": False}


def test_files_and_objects_in_snippets_exist() -> None:
    for path in re.findall(r"(?:charts|manifests)/[\w./-]+", PAGE):
        assert (CHECKOUT / path).exists(), path
    names = {item["metadata"]["name"] for item in INSTALL}
    for name in re.findall(r"--role=([\w-]+)", PAGE):
        assert name in names
