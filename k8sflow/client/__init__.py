"""The client, which reads runs: Flow, Run, Step, Task, DataArtifact, a tree that is read from the store on demand.

Flow("BigSum").latest_run["end"].task.data.total
"""

from k8sflow.client.artifact import DataArtifact
from k8sflow.client.flow import Flow, Metaflow
from k8sflow.client.namespaces import default_namespace, get_namespace, namespace
from k8sflow.client.run import Run
from k8sflow.client.step import Step
from k8sflow.client.stores import default_metadata, get_metadata, inspect_spin, metadata
from k8sflow.client.task import Task
from k8sflow.errors import NamespaceMismatchError, NotFoundError

__all__ = [
    "DataArtifact",
    "Flow",
    "Metaflow",
    "NamespaceMismatchError",
    "NotFoundError",
    "Run",
    "Step",
    "Task",
    "default_metadata",
    "default_namespace",
    "get_metadata",
    "get_namespace",
    "inspect_spin",
    "metadata",
    "namespace",
]
