"""Labels and annotations that identify the objects of a run."""

from __future__ import annotations

from k8sflow.kubernetes.names import label_value
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskSpec

MANAGED_BY = "app.kubernetes.io/managed-by"
FLOW = "k8sflow.dev/flow"
RUN = "k8sflow.dev/run"
STEP = "k8sflow.dev/step"
TASK = "k8sflow.dev/task"
ATTEMPT = "k8sflow.dev/attempt"
QUEUE = "kueue.x-k8s.io/queue-name"
# On Jobs: all tasks of a Job, as ``TaskBatch`` writes them, and how many each of its pods has.
TASKS = "k8sflow.dev/tasks"
TASKS_PER_POD = "k8sflow.dev/tasks-per-pod"
# On pods of processes that run together, by which their Service finds them.
TOGETHER_LABELS = {"k8sflow.dev/gang": "true"}
JOB_NAME = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"


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


def task_labels(tasks: TaskBatch) -> dict[str, str]:
    """The labels of a Job and its pods; that of the task only where the Job has one."""
    task = tasks.template
    alone = {TASK: label_value(task.name.id)} if len(tasks) == 1 else {}
    return {**step_labels(task), **alone}


def task_annotations(tasks: TaskBatch) -> dict[str, str]:
    """The full names of the run, the step and, where there is one, the task; and the number of the attempt."""
    task = tasks.template
    alone = {TASK: task.name.id} if len(tasks) == 1 else {}
    return {**run_annotations(task.flow, task.run), STEP: task.name.step, **alone, ATTEMPT: str(task.attempt)}


def job_annotations(tasks: TaskBatch, per_pod: int) -> dict[str, str]:
    """The annotations of a Job: from them, another driver learns which tasks it has."""
    shared = {TASK: tasks.ids, TASKS_PER_POD: str(per_pod)} if len(tasks) > 1 else {}
    return {**task_annotations(tasks), **shared, TASKS: tasks.to_json()}
