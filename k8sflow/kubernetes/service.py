"""The Service by which pods that run together find each other: a function from values to a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k8sflow.kubernetes import labels, names
from k8sflow.kubernetes.manifest import Manifest


def service_manifest(*, flow: str, run: str, namespace: str, owner: Mapping[str, Any] | None = None) -> Manifest:
    """A headless Service, which has no address and no port of its own: its pods have names in DNS.

    They have them as soon as they have an address, since none of them is ready before it has found the others.
    """
    metadata: Manifest = {
        "name": names.service_name(flow=flow, run=run),
        "namespace": namespace,
        "labels": labels.run_labels(flow, run),
        "annotations": labels.run_annotations(flow, run),
    }
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {**labels.run_labels(flow, run), **labels.TOGETHER_LABELS},
        },
    }
