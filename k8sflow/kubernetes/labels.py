"""Labels and annotations that identify the objects of a run."""

from __future__ import annotations

from k8sflow.kubernetes.names import label_value
from k8sflow.task.spec import TaskSpec

MANAGED_BY = "app.kubernetes.io/managed-by"
FLOW = "k8sflow.dev/flow"
RUN = "k8sflow.dev/run"
STEP = "k8sflow.dev/step"
TASK = "k8sflow.dev/task"
ATTEMPT = "k8sflow.dev/attempt"
QUEUE = "kueue.x-k8s.io/queue-name"
JOB_NAME = "batch.kubernetes.io/job-name"


def run_labels(flow: str, run: str) -> dict[str, str]:
    """The labels of every object of a run."""
    return {MANAGED_BY: "k8sflow", FLOW: label_value(flow), RUN: label_value(run)}


def run_selector(flow: str, run: str) -> str:
    """The label selector that matches exactly the objects of a run."""
    return ",".join(f"{name}={value}" for name, value in run_labels(flow, run).items())


def run_annotations(flow: str, run: str) -> dict[str, str]:
    """The full names, which may be shortened in the labels."""
    return {FLOW: flow, RUN: run}


def step_labels(task: TaskSpec) -> dict[str, str]:
    """The labels of the Jobs and pods of a task's step."""
    return {**run_labels(task.flow, task.run), STEP: label_value(task.name.step)}


def task_labels(task: TaskSpec) -> dict[str, str]:
    """The labels of a task's Job and pod."""
    return {**step_labels(task), TASK: label_value(task.name.id)}


def task_annotations(task: TaskSpec) -> dict[str, str]:
    """The full names of a task's run, step and id, and the number of the attempt."""
    return {
        **run_annotations(task.flow, task.run),
        STEP: task.name.step,
        TASK: task.name.id,
        ATTEMPT: str(task.attempt),
    }
