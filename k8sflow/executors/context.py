"""The run whose tasks an executor runs, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k8sflow import outages
from k8sflow.config import Settings
from k8sflow.executors.base import Report
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.decorators.policy import StepPolicy, TimeLimit
from k8sflow.flow.definition import FlowDefinition
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore


@dataclass(frozen=True)
class RunContext:
    """A run, and how an executor is to run its tasks.

    Args:
        report: Takes the executor's events, and the error that ends it.
        record: The run's record.
        run_store: The store with its state.
        settings: The settings; the namespace among them is that of the run's pods.
        pods: The pod options of the steps that run in pods.
        policies: Retries, timeout and catch, by step.
        definition: The flow; None where its code is not at hand, as in a driver in the cluster.
        max_workers: How many tasks run at a time; None for the executor's own default.
        lock: A file descriptor that processes of tasks on this machine keep open until they have ended.
        owner: The ownerReference of the object to which the run's objects in the cluster belong.
        batch: The options of the jobs of the steps that run on AWS Batch.
        notice: Takes reports about outages of the executor's servers; called in any thread.
    """

    report: Report
    record: RunRecord
    run_store: RunStore
    settings: Settings
    pods: Mapping[str, PodOptions] = field(default_factory=dict)
    policies: Mapping[str, StepPolicy] = field(default_factory=dict)
    definition: FlowDefinition | None = None
    max_workers: int | None = None
    lock: int | None = None
    owner: dict[str, Any] | None = None
    notice: outages.Report | None = None
    batch: Mapping[str, BatchOptions] = field(default_factory=dict)

    def time_limit(self, step: str) -> TimeLimit | None:
        """The time limit of an execution of a step's task; None if there is none."""
        return self.policies[step].time_limit if step in self.policies else None
