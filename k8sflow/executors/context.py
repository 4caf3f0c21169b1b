"""The run whose tasks an executor runs, as one value, and the executors by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k8sflow.config import Settings
from k8sflow.executors.base import Executor, Report
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.decorators.policy import StepPolicy, TimeLimit
from k8sflow.flow.definition import FlowDefinition
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RUNS, RunStore
from k8sflow.task.inside.runner import TaskRunner

LOCAL, KUBERNETES = "local", "kubernetes"
# The one that forks is made before others start threads.
EXECUTORS = (LOCAL, KUBERNETES)


@dataclass(frozen=True)
class RunContext:
    """A run, and how an executor is to run its tasks.

    Args:
        report: Takes the executor's events, and the error that ends it.
        record: The run's record.
        store: The store with its state.
        settings: The settings; the namespace among them is that of the run's pods.
        pods: The pod options of the steps that run in pods.
        policies: Retries, timeout and catch, by step.
        definition: The flow; None where its code is not at hand, as in a driver in the cluster.
        folder: The folder of the flow in which the run is.
        max_workers: How many tasks run at a time; None for the executor's own default.
        lock: A file descriptor that processes of tasks on this machine keep open until they have ended.
        owner: The ownerReference of the object to which the run's objects in the cluster belong.
    """

    report: Report
    record: RunRecord
    store: ObjectStore
    settings: Settings
    pods: Mapping[str, PodOptions] = field(default_factory=dict)
    policies: Mapping[str, StepPolicy] = field(default_factory=dict)
    definition: FlowDefinition | None = None
    folder: str = RUNS
    max_workers: int | None = None
    lock: int | None = None
    owner: dict[str, Any] | None = None

    @property
    def run_store(self) -> RunStore:
        """The run's records."""
        return RunStore(self.store, self.record.flow, self.record.run, self.folder)

    def time_limit(self, step: str) -> TimeLimit | None:
        """How long an execution of a step's task may take; None for any time."""
        return self.policies[step].time_limit if step in self.policies else None


def make(name: str, context: RunContext) -> Executor:
    """Makes the executor of a name; a new executor is one more case here, and a package beside this module."""
    match name:
        case "local":
            return _local(context)
        case "kubernetes":
            from k8sflow.executors.kubernetes.executor import KubernetesExecutor  # noqa: PLC0415  only it needs the API

            return KubernetesExecutor(context)
        case _:
            raise ValueError(f"there is no executor {name!r}")


def _local(context: RunContext) -> Executor:
    """The executor of this machine; it forks, so it comes before anything that starts a thread."""
    from k8sflow.executors.local import LocalExecutor  # noqa: PLC0415  a driver in the cluster runs no task itself

    assert context.definition is not None, "tasks of this machine need the flow's code"
    return LocalExecutor(
        context.report,
        TaskRunner(context.definition, context.record, context.store, context.folder),
        context.max_workers or os.cpu_count() or 1,
        limit_of=context.time_limit,
        lock=context.lock,
        log_patience=context.settings.storage_patience,
    )
