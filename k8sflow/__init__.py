"""Data and ML flows as plain Python classes: on your machine, and unchanged on Kubernetes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from k8sflow.client import DataArtifact, Flow, Run, Step, Task
    from k8sflow.errors import K8sflowError
    from k8sflow.flow.decorators import kubernetes, resources, step
    from k8sflow.flow.parameters import Parameter
    from k8sflow.flow.spec import FlowSpec
    from k8sflow.parallel import parallel_imap, parallel_imap_unordered, parallel_map

__version__ = "0.1.0"

# Where each public name lives; loaded when it is first asked for, so that a flow pays only for what it uses.
_HOMES = {
    "DataArtifact": "k8sflow.client",
    "Flow": "k8sflow.client",
    "FlowSpec": "k8sflow.flow.spec",
    "K8sflowError": "k8sflow.errors",
    "Parameter": "k8sflow.flow.parameters",
    "Run": "k8sflow.client",
    "Step": "k8sflow.client",
    "Task": "k8sflow.client",
    "kubernetes": "k8sflow.flow.decorators",
    "parallel_imap": "k8sflow.parallel",
    "parallel_imap_unordered": "k8sflow.parallel",
    "parallel_map": "k8sflow.parallel",
    "resources": "k8sflow.flow.decorators",
    "step": "k8sflow.flow.decorators",
}

__all__ = [
    "DataArtifact",
    "Flow",
    "FlowSpec",
    "K8sflowError",
    "Parameter",
    "Run",
    "Step",
    "Task",
    "kubernetes",
    "parallel_imap",
    "parallel_imap_unordered",
    "parallel_map",
    "resources",
    "step",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'k8sflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
