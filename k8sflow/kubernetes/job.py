"""The manifest of a Job: a function from values to a dictionary.

A task is a ``batch/v1`` Job with one pod (see ``pod``), or an index of an Indexed Job, which has a pod for each of its
indices (https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode). The Job replaces a pod after a
disruption, can be queued by a queue manager, and is cleaned up after its TTL; how a task ended is read from its pod
(see ``outcome``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.kubernetes import labels
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.pod import pod, pod_labels
from k8sflow.task.batch import TaskBatch

DEFAULT_TTL_SECONDS = 3600


@dataclass(frozen=True)
class TaskJob:
    """The inputs of one Job.

    Args:
        name: Name of the Job, of at most ``names.LONGEST_JOB_NAME`` characters.
        namespace: Namespace of the run.
        tasks: The tasks that its pods execute.
        options: Everything the step asks of its pod; ``image``, ``cpu`` and ``memory`` are set.
        runtime_image: The k8sflow image. The runtime is copied from it into pods of other images.
        command: The container's command and arguments, which no shell interprets.
        per_pod: How many of the tasks each pod executes.
        parallelism: How many of its pods run at a time.
        service: The Service of pods that run together; empty for others.
        owner: The ownerReference of the run's owner, or None.
        environment: Environment variables of the container; those of the options and k8sflow's own are added.
        keys: Where the pod has the keys of the bucket.
        ttl_seconds: How long the finished Job is kept for inspection.
    """

    name: str
    namespace: str
    tasks: TaskBatch
    options: PodOptions
    runtime_image: str
    command: Sequence[str]
    per_pod: int = 1
    parallelism: int = 1
    service: str = ""
    owner: Mapping[str, Any] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    keys: BucketKeys = field(default_factory=BucketKeys)
    ttl_seconds: int = DEFAULT_TTL_SECONDS

    @property
    def image(self) -> str:
        """Image of the task's container."""
        return self.options.image or self.runtime_image

    @property
    def pods(self) -> int:
        """The number of its pods: of more than one, each is an index of an Indexed Job."""
        return -(-len(self.tasks) // self.per_pod)


def job_manifest(job: TaskJob) -> Manifest:
    """The Job's manifest for the API server."""
    metadata: Manifest = {
        "name": job.name,
        "namespace": job.namespace,
        "labels": _labels(job),
        "annotations": {**(job.options.annotations or {}), **labels.job_annotations(job.tasks, job.per_pod)},
    }
    if job.owner is not None:
        metadata["ownerReferences"] = [dict(job.owner)]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": _job_spec(job)}


def _labels(job: TaskJob) -> dict[str, str]:
    queue = {labels.QUEUE: job.options.queue} if job.options.queue is not None else {}
    return {**pod_labels(job), **queue}


def _job_spec(job: TaskJob) -> Manifest:
    # The driver retries failures of the code: it can wait or request more. Disruptions don't count (KEP-3329); the
    # failure of one index leaves the others alone (KEP-3850).
    once: Manifest = {"backoffLimit": 0} if job.pods == 1 else {"completionMode": "Indexed", "backoffLimitPerIndex": 0}
    # A disruption ends all pods that run together; of tasks that shared a pod, only those without a result run again.
    if not job.service and len(job.tasks) == job.pods:
        disruptions = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        once["podFailurePolicy"] = {"rules": [disruptions]}
    return {
        "completions": job.pods,
        "parallelism": job.parallelism,
        **once,
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": job.ttl_seconds,
        # Kueue starts the Job: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/
        **({"suspend": True} if job.options.queue is not None else {}),
        "template": pod(job),
    }
