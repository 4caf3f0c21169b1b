"""The nodes that could ever take a pod: by their labels, their taints, and what they have for pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from k8sflow import units
from k8sflow.flow.decorators import quantity
from k8sflow.kubernetes.findings import Finding, of_steps
from k8sflow.kubernetes.manifest import Manifest

Node = Mapping[str, Any]
_REPELLING = {"NoSchedule", "NoExecute"}
# A node that is cordoned or not ready now may be usable in a minute.
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_SHOWN = {"cpu", "memory", "ephemeral-storage"}


def check_nodes(nodes: Sequence[Node], pods: Mapping[str, Manifest]) -> list[Finding]:
    """The warnings about steps that no node of a cluster could take, even an empty one.

    They are warnings, because a cluster may add nodes for a pod that waits.

    Args:
        nodes: All nodes of the cluster.
        pods: The pod template of each step's Job.
    """
    reasons: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for step, template in pods.items():
        if (why := _why_none(nodes, template["spec"])) is not None:
            reasons.setdefault(tuple(sorted(why.items())), []).append(step)
    return [
        Finding(
            f"no node of the cluster can take the pod of {of_steps(steps)}.",
            f"Of {len(nodes)} node{'s' if len(nodes) != 1 else ''}: "
            + "; ".join(f"{count} {reason}" for reason, count in why)
            + ".",
            "The run waits until the cluster adds a node that can. If it never does, request less with @resources, "
            "or change node_selector or tolerations.",
            is_error=False,
        )
        for why, steps in reasons.items()
    ]


def room_for(nodes: Sequence[Node], spec: Manifest) -> int | None:
    """The number of pods of one spec that nodes could take if they were empty; None if that can't be judged here."""
    if (spec.get("affinity") or {}) or spec.get("resourceClaims") or spec.get("topologySpreadConstraints"):
        return None
    wanted = _requests(spec)
    return sum(_fitting(node, wanted) for node in nodes if not _obstacle(node, spec, wanted))


def _fitting(node: Node, wanted: Mapping[str, Decimal]) -> int:
    offered = node["status"]["allocatable"]
    counts = {**wanted, "pods": Decimal(1)}
    return min(int(quantity.parse(str(offered[name])) / amount) for name, amount in counts.items() if name in offered)


def _why_none(nodes: Sequence[Node], spec: Manifest) -> Counter[str] | None:
    """Why each node can't take a pod; None if one can, or if that can't be judged here."""
    if not nodes or (spec.get("affinity") or {}).get("nodeAffinity") or spec.get("resourceClaims"):
        return None
    wanted = _requests(spec)
    why: Counter[str] = Counter()
    for node in nodes:
        if not (reason := _obstacle(node, spec, wanted)):
            return None
        why[reason] += 1
    return why


def _obstacle(node: Node, spec: Manifest, wanted: Mapping[str, Decimal]) -> str:
    has = node["metadata"].get("labels") or {}
    if other := [f"{key}={value}" for key, value in (spec.get("nodeSelector") or {}).items() if has.get(key) != value]:
        return f"without {', '.join(other)}"
    for taint in node["spec"].get("taints") or ():
        if taint["key"].startswith(_PASSING) or taint["effect"] not in _REPELLING:
            continue
        if not any(_tolerates(toleration, taint) for toleration in spec.get("tolerations") or ()):
            return f"with the taint {taint['key']}={taint.get('value', '')}:{taint['effect']}"
    offered = (node.get("status") or {}).get("allocatable") or {}
    for name, amount in wanted.items():
        if amount > quantity.parse(str(offered.get(name, "0"))):
            return f"with {_amount(name, offered.get(name, '0'))} where it requests {_amount(name, str(amount))}"
    return ""


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """True if a toleration matches a taint, by the rules of the scheduler."""
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    pair = (toleration.get("key"), toleration.get("value", ""))
    return pair == (taint["key"], taint.get("value", ""))


def _requests(spec: Manifest) -> dict[str, Decimal]:
    """The requests of a pod: those of its containers in sum, or of an init container if that requests more."""
    total: dict[str, Decimal] = {}
    for container in spec["containers"]:
        for name, amount in _of_container(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in spec.get("initContainers") or ():
        for name, amount in _of_container(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    return {name: amount for name, amount in total.items() if amount}


def _of_container(container: Manifest) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    found = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity.parse(str(amount)) for name, amount in found.items()}


def _amount(name: str, value: str) -> str:
    amount = quantity.parse(str(value))
    shown = f"{amount.normalize():f}" if name not in _SHOWN - {"cpu"} else units.size(int(amount))
    return f"{name}={shown}"
