"""Reading runs back: Flow, Run, Step, Task, DataArtifact."""

from k8sflow.client.core import DataArtifact, Flow, NotFoundError, Run, Step, Task

__all__ = ["DataArtifact", "Flow", "NotFoundError", "Run", "Step", "Task"]
