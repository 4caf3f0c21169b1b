"""docs/operators.md says what the chart does."""

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
# Values that belong together stand in one row of the page, the later ones shortened.
ROWS = {
    ".nodeSelector": "controller.nodeSelector",
    ".tolerations": "controller.tolerations",
    ".memory": "driver.resources.memory",
}


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and path != "controller.resources":
            yield from leaves(value, f"{path}.")
        else:
            yield path


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_every_value_of_the_chart_is_in_the_table_and_none_else() -> None:
    told = [name for row in table("Values") for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(ROWS.get(name, name) for name in told) == sorted(leaves(VALUES))


def test_the_rights_in_the_table_are_those_of_the_roles() -> None:
    roles = {item["metadata"]["name"]: item["rules"] for item in INSTALL if item["kind"] == "Role"}
    told = {re.findall(r"`([^`]+)`", row[0])[0]: row[1] for row in table("Rights")}
    for name in ("k8sflow-controller", "k8sflow-driver"):
        rules = ["/".join(rule["resources"]) + ": " + ", ".join(rule["verbs"]) for rule in roles[name]]
        assert sorted(told[name].split("; ")) == sorted(rules)
    assert set(told) == {*roles, "k8sflow-task"}


def test_nothing_of_the_chart_is_cluster_wide_but_the_crd() -> None:
    kinds = {item["kind"] for item in INSTALL}
    assert not {kind for kind in kinds if kind.startswith("Cluster")}
    assert {"CustomResourceDefinition", "Deployment", "Role", "RoleBinding", "ServiceAccount", "Namespace"} == kinds


def test_service_accounts_have_their_tokens_mounted_only_where_they_are_used() -> None:
    mounts = {
        item["metadata"]["name"]: item.get("automountServiceAccountToken", True)
        for item in INSTALL
        if item["kind"] == "ServiceAccount"
    }
    # the controller's pod asks for its token itself
    assert mounts == {"k8sflow-controller": False, "k8sflow-driver": True, "k8sflow-task": False}


def test_every_snippet_names_files_and_objects_that_are_there() -> None:
    for path in re.findall(r"(?:charts|manifests)/[\w./-]+", PAGE):
        assert (CHECKOUT / path).exists(), path
    names = {item["metadata"]["name"] for item in INSTALL}
    for name in re.findall(r"--role=([\w-]+)", PAGE):
        assert name in names
