"""``current.run`` and ``current.task``: the client's objects for the task that this process runs."""

from __future__ import annotations

from k8sflow.client.run import Run
from k8sflow.client.step import Step
from k8sflow.client.task import Task
from k8sflow.storage.run_store import RunStore


def run(run_store: RunStore) -> Run:
    """The run of the current task."""
    return Run(run_store)


def task(run_store: RunStore, step: str, task_id: str) -> Task:
    """The current task, which need not have any records yet."""
    return Task(task_id, parent=Step(step, parent=Run(run_store)))
