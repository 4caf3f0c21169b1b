"""Jobs in a queue of Kueue: it unsuspends them when there is room, and suspends them again to make room for others.

k8sflow creates such a Job suspended, and never changes that itself.
https://kueue.sigs.k8s.io/docs/concepts/workload/
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.kubernetes import diagnosis, labels
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.findings import Finding, named_by, of_steps
from k8sflow.kubernetes.manifest import Manifest, condition
from k8sflow.task.result import TaskResult

_GROUP = "kueue.x-k8s.io"
_JOB_UID = f"{_GROUP}/job-uid"
# The conditions of a Workload that explain a wait, the strongest first.
_CONDITIONS = ("QuotaReserved", "Admitted", "Evicted")


def is_suspended(job: Manifest) -> bool:
    """True if the Job runs no pod until someone unsuspends it."""
    return bool(job["spec"].get("suspend"))


def was_suspended(job: Manifest, pod: Manifest) -> bool:
    """True if the Job has been suspended since a pod of it was created, though it may run again by now."""
    if is_suspended(job):
        return True
    resumed = condition(job, "Suspended", status="False")
    return resumed is not None and str(resumed["lastTransitionTime"]) > str(pod["metadata"]["creationTimestamp"])


async def check_queues(api: KubernetesApi, namespace: str, queues: Mapping[str, str]) -> list[Finding]:
    """The findings about queues that will start no Job; what may not be read is not checked.

    Args:
        api: The API server.
        namespace: The namespace of the Jobs.
        queues: The queue of each step that has one.

    Raises:
        KubernetesError: The API server doesn't answer.
    """
    if not queues:
        return []
    try:
        group = await api.get(f"/apis/{_GROUP}")
    except ApiStatusError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            return []
        return [
            Finding(
                f"the cluster has no Kueue, which would have to start the Jobs of {of_steps(queues)}.",
                f"A Job with queue={next(iter(queues.values()))!r} is created suspended, and waits for Kueue.",
                "Have Kueue installed, or run without queue=….",
            )
        ]
    path = f"/apis/{group['preferredVersion']['groupVersion']}/namespaces/{namespace}/localqueues"
    names = sorted(set(queues.values()))
    is_missing = await asyncio.gather(*(_is_missing(api, f"{path}/{name}") for name in names))
    return [
        Finding(
            f"there is no LocalQueue {name!r} in namespace {namespace!r}, which "
            f"{named_by(step for step, queue in queues.items() if queue == name)}.",
            advice=f"Name one that exists (`kubectl get localqueues -n {namespace}`): queue=….",
        )
        for name, missing in zip(names, is_missing, strict=True)
        if missing
    ]


async def _is_missing(api: KubernetesApi, path: str) -> bool:
    try:
        await api.get(path)
    except ApiStatusError as error:
        return error.status == HTTPStatus.NOT_FOUND  # or it may not be read
    return False


async def why(api: KubernetesApi, job: Manifest) -> TaskResult:
    """The reason why a suspended Job waits, in the words of Kueue where it may be asked."""
    queue = (job["metadata"].get("labels") or {}).get(labels.QUEUE)
    if queue is None:
        return diagnosis.suspended(None, "", has_kueue=True)
    try:
        group = await api.get(f"/apis/{_GROUP}")
    except ApiStatusError as error:
        return diagnosis.suspended(queue, "", has_kueue=error.status != HTTPStatus.NOT_FOUND)
    version = group["preferredVersion"]["groupVersion"]
    path = f"/apis/{version}/namespaces/{job['metadata']['namespace']}/workloads"
    try:
        workloads, _ = await api.list(path, label_selector=f"{_JOB_UID}={job['metadata']['uid']}")
    except KubernetesError:
        workloads = []  # few users may read them
    return diagnosis.suspended(queue, _message(workloads), has_kueue=True)


def _message(workloads: list[Manifest]) -> str:
    """Kueue's reason, from the conditions of the Job's Workload."""
    conditions = [c for found in workloads for c in (found.get("status") or {}).get("conditions") or ()]
    by_type = {condition["type"]: condition for condition in conditions}
    for kind in _CONDITIONS:
        condition = by_type.get(kind)
        if condition is not None and (condition["status"] == "False") == (kind != "Evicted"):
            return str(condition.get("message") or "")
    return ""
