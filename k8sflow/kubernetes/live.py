"""The tasks of a flow's runs that have Jobs in the cluster, read from the Jobs and their pods alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from k8sflow.errors import KubernetesError
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.kubernetes import labels, names, waiting
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.manifest import Manifest, condition
from k8sflow.kubernetes.outcome import PodEnd, Running, is_being_deleted, pod_state
from k8sflow.kubernetes.pod import CONTAINER
from k8sflow.task.batch import TaskBatch
from k8sflow.task.result import TaskResult


@dataclass(frozen=True)
class LiveTask:
    """The tasks of a pod, usually one, or all tasks of a Job without pods, as the cluster shows them.

    Args:
        tasks: The tasks.
        job: The Job.
        pod: Its pod; None if it has none yet, or no longer.
    """

    tasks: TaskBatch
    job: Manifest
    pod: Manifest | None = None

    @property
    def run(self) -> str:
        """The run's id."""
        return self.tasks.template.run

    @property
    def step(self) -> str:
        """The step."""
        return self.tasks.template.name.step

    @property
    def task(self) -> str:
        """The task's id in its step; several as ``0-9, 12``."""
        return self.tasks.ids

    @property
    def attempt(self) -> int:
        """The number of the attempt."""
        return self.tasks.template.attempt

    def has(self, task: str) -> bool:
        """True if the task with this id is one of them."""
        return any(each.name.id == task for each in self.tasks)

    @property
    def job_name(self) -> str:
        """The Job's name."""
        return str(self.job["metadata"]["name"])

    @property
    def pod_name(self) -> str:
        """The pod's name; empty without one."""
        return "" if self.pod is None else str(self.pod["metadata"]["name"])

    @property
    def node(self) -> str:
        """The node's name; empty before the pod has one."""
        return "" if self.pod is None else str(self.pod["spec"].get("nodeName") or "")

    @property
    def created(self) -> float:
        """When the Job was created, in seconds since 1970."""
        text = str(self.job["metadata"]["creationTimestamp"])
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()

    @property
    def is_over(self) -> bool:
        """True if nothing of it runs or will."""
        if self.pod is not None and isinstance(pod_state(self.pod, self.options), PodEnd):
            return True
        return condition(self.job, "Complete") is not None or condition(self.job, "Failed") is not None

    @property
    def options(self) -> PodOptions:
        """The requests of the pod."""
        container = next(c for c in self._template["spec"]["containers"] if c["name"] == CONTAINER)
        requests = (container.get("resources") or {}).get("requests") or {}
        return PodOptions(cpu=str(requests.get("cpu", "0")), memory=str(requests.get("memory", "0")))

    @property
    def phase(self) -> str:
        """The state in a few words: ``running``, ``waiting``, ``succeeded``, ``failed (out of memory)``."""
        if is_being_deleted(self.pod or self.job):
            return "stopping"
        if self.job["spec"].get("suspend"):
            return "queued"
        if self.pod is None:
            return "ended" if self.is_over else "no pod yet"
        match pod_state(self.pod, self.options):
            case Running():
                return "running"
            case PodEnd(result=result):
                word = result.outcome.value.replace("_", " ")
                return word if result.failure is None else f"failed ({word})"
            case _:
                return "waiting" if self.why_waiting else "starting"

    @property
    def why_waiting(self) -> TaskResult | None:
        """The reason why its pod has not started, as far as the pod itself shows it."""
        return self.diagnosis(None)

    def diagnosis(self, largest_node: tuple[str, str] | None) -> TaskResult | None:
        """The reason why its pod has not started, with the size of the largest node, where that is known."""
        return None if self.pod is None else waiting.why(self.pod, self.options, largest_node)

    @property
    def end(self) -> PodEnd | None:
        """The end of its pod; None if it has not ended."""
        state = None if self.pod is None else pod_state(self.pod, self.options)
        return state if isinstance(state, PodEnd) else None

    @property
    def _template(self) -> Manifest:
        return self.pod if self.pod is not None else dict(self.job["spec"]["template"])


def flow_selector(flow: str, run: str | None = None) -> str:
    """The label selector for the objects of a flow's runs, or of one run."""
    if run is not None:
        return labels.run_selector(flow, run)
    return f"{labels.MANAGED_BY}=k8sflow,{labels.FLOW}={names.label_value(flow)}"


async def live_tasks(api: KubernetesApi, namespace: str, flow: str, run: str | None = None) -> list[LiveTask]:
    """The tasks of a flow's runs that have Jobs, also finished ones, in the order of their creation.

    Args:
        api: The API server.
        namespace: The namespace.
        flow: The flow's name.
        run: The run's id; None for all.

    Raises:
        KubernetesError: Jobs or pods may not be listed.
    """
    selector = flow_selector(flow, run)
    jobs, _ = await api.list(f"/apis/batch/v1/namespaces/{namespace}/jobs", label_selector=selector)
    pods, _ = await api.list(f"/api/v1/namespaces/{namespace}/pods", label_selector=selector)
    return sorted(_joined(jobs, pods), key=lambda task: (task.created, task.job_name, task.pod_name))


def _joined(jobs: Iterable[Manifest], pods: Iterable[Manifest]) -> Iterator[LiveTask]:
    by_job: dict[str, list[Manifest]] = {}
    for pod in pods:
        name = (pod["metadata"].get("labels") or {}).get(labels.JOB_NAME, "")
        by_job.setdefault(name, []).append(pod)
    for job in jobs:
        notes = job["metadata"].get("annotations") or {}
        if labels.TASKS not in notes:
            continue  # the driver of a detached run
        tasks, per_pod = TaskBatch.from_json(notes[labels.TASKS]), int(notes.get(labels.TASKS_PER_POD, 1))
        if found := by_job.get(job["metadata"]["name"]):
            yield from (LiveTask(_tasks_of(pod, tasks, per_pod), job, pod) for pod in found)
        else:
            yield LiveTask(tasks, job)


def _tasks_of(pod: Manifest, tasks: TaskBatch, per_pod: int) -> TaskBatch:
    """The tasks of a Job that one of its pods has."""
    if len(tasks) == 1:
        return tasks
    index = (pod["metadata"].get("annotations") or {}).get(labels.INDEX)
    return tasks if index is None else tasks.share(int(index), per_pod)


async def largest_node(api: KubernetesApi) -> tuple[str, str] | None:
    """Allocatable cores and memory of the largest node; None where nodes may not be listed."""
    try:
        nodes, _ = await api.list("/api/v1/nodes")
    except KubernetesError:
        return None  # a courtesy
    return waiting.largest(nodes)


async def events_of(api: KubernetesApi, namespace: str, task: LiveTask) -> list[Manifest]:
    """The events of a task's Job and pod, the newest last; none where they may not be read."""
    path = f"/api/v1/namespaces/{namespace}/events"
    found: list[Manifest] = []
    for each in (task.job, task.pod):
        if each is None:
            continue
        try:
            listed, _ = await api.list(path, field_selector=f"involvedObject.uid={each['metadata']['uid']}")
        except KubernetesError:
            return []  # a courtesy
        found += listed
    return sorted(found, key=waiting.time_of)
