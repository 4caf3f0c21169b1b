"""FlowRuns, driver Jobs and pods as the API server would give them."""

from __future__ import annotations

from typing import Any

from k8sflow.controller.driver_job import driver_job
from k8sflow.controller.flowrun_policy import Policy

Manifest = dict[str, Any]

POLICY = Policy(image="k8sflow:1", driver_images=("k8sflow:2",))


def flowrun(*, status: Manifest | None = None, name: str = "sum-run-1", **spec: Any) -> Manifest:
    """A FlowRun; ``spec`` replaces keys of its spec."""
    return {
        "apiVersion": "k8sflow.dev/v1alpha1",
        "kind": "FlowRun",
        "metadata": {"name": name, "namespace": "lab", "uid": f"uid-of-{name}", "generation": 1},
        "spec": {
            "flow": "Sum",
            "run": "r1",
            "code": {"store": "s3://bucket/team", "package": "0" * 64},
            "settings": {"credentials": "secret:keys", "endpoint": "http://s3:9000", "region": "eu-1"},
            **spec,
        },
        **({"status": status} if status is not None else {}),
    }


def job(of: Manifest, *, failed: int = 0, **conditions: Manifest) -> Manifest:
    """The driver Job of a FlowRun, with conditions by type."""
    made = driver_job(of, POLICY)
    made["metadata"]["uid"] = f"job-{of['metadata']['uid']}"
    listed = [{"type": kind, "status": "True", **condition} for kind, condition in conditions.items()]
    return {**made, "status": {"failed": failed, "conditions": listed}}


def pod(
    name: str = "p1", *, created: str = "2026-01-01T00:00:00Z", phase: str = "Pending", **state: Manifest
) -> Manifest:
    """A driver's pod with its container's state: ``waiting``, ``running`` or ``terminated``."""
    return {
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": f"uid-of-{name}",
            "creationTimestamp": created,
            "labels": {"k8sflow.dev/flowrun": "sum-run-1"},
        },
        "status": {"phase": phase, "containerStatuses": [{"name": "driver", "state": state}] if state else []},
    }
