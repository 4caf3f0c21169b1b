"""The manifest of a Job: a function from values to a dictionary.

A task is a ``batch/v1`` Job with one pod, or an index of an Indexed Job, which has a pod for each of its indices
(https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode). The Job replaces a pod after a
disruption, can be queued by a queue manager, and is cleaned up after its TTL; how a task ended is read from its pod
(see ``outcome``).

The container's root file system stays writable: the pod runs as a user that owns nothing in it, and images whose
tools write beside themselves keep working. The work folder and /tmp (also HOME) are emptyDirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.kubernetes import labels
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.pod_environment import USERS_PYTHONPATH

CONTAINER = "task"
RUNTIME_CONTAINER = "k8sflow-runtime"
RUNTIME_FOLDER = "/opt/k8sflow"
WORK_FOLDER = "/k8sflow/work"
# Not through PYTHONPATH, which would replace the image's own; the agent adds the runtime to it.
AGENT = (
    "python3",
    "-c",
    f"import sys; sys.path.insert(0, {RUNTIME_FOLDER!r}); from k8sflow.task.host.agent import main; sys.exit(main())",
)

DEFAULT_USER = 65532
DEFAULT_DEADLINE_SECONDS = 5 * 24 * 3600
DEFAULT_TTL_SECONDS = 3600
GRACE_SECONDS = 5
_COPIED_RUNTIME = "/runtime"
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


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
        owner: The ownerReference of the run's owner, or None.
        environment: Environment variables of the container; those of the options and k8sflow's own are added.
        credentials_secret: Secret with the keys of the bucket, or None for workload identity.
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
    owner: Mapping[str, Any] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    credentials_secret: str | None = None
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


def literal(text: str) -> str:
    """Escapes a variable's value or a word of a command, so that the container gets it as written.

    The kubelet expands ``$(NAME)`` and turns ``$$`` into one dollar sign:
    https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/#envvar-v1-core
    """
    return text.replace("$", "$$")


def variables(values: Mapping[str, str], credentials_secret: str | None) -> list[Manifest]:
    """Environment variables of a container: literal values, and the keys of the bucket from a Secret."""
    keys = _CREDENTIALS if credentials_secret is not None else ()
    return [
        *({"name": name, "value": literal(value)} for name, value in values.items()),
        *({"name": key, "valueFrom": {"secretKeyRef": {"name": credentials_secret, "key": key}}} for key in keys),
    ]


def resource_requirements(options: PodOptions) -> Manifest:
    """Requests and limits: both for memory, disk and GPUs; only a request for cores.

    A limit on cores would throttle a task that could use idle ones; unlimited memory can take the node down.
    """
    limits: dict[str, Any] = {"memory": options.memory}
    if options.disk is not None:
        limits["ephemeral-storage"] = options.disk
    requests = {"cpu": options.cpu, **limits}
    if options.gpu:
        limits[f"{options.gpu_vendor or 'nvidia'}.com/gpu"] = str(options.gpu)
    return {"requests": requests, "limits": limits}


def _labels(job: TaskJob) -> dict[str, str]:
    return {**(job.options.labels or {}), **labels.task_labels(job.tasks)}


def _annotations(job: TaskJob) -> dict[str, str]:
    return {**(job.options.annotations or {}), **labels.task_annotations(job.tasks)}


def _job_spec(job: TaskJob) -> Manifest:
    # The driver retries failures of the code: it can wait or request more. Disruptions don't count (KEP-3329); the
    # failure of one index leaves the others alone (KEP-3850).
    once: Manifest = {"backoffLimit": 0} if job.pods == 1 else {"completionMode": "Indexed", "backoffLimitPerIndex": 0}
    disruptions = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    if len(job.tasks) == job.pods:  # of tasks that shared a pod, only those without a result run again
        once["podFailurePolicy"] = {"rules": [disruptions]}
    return {
        "completions": job.pods,
        "parallelism": job.parallelism,
        **once,
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": job.ttl_seconds,
        "template": {
            "metadata": {"labels": _labels(job), "annotations": _annotations(job)},
            "spec": _pod_spec(job),
        },
    }


def _pod_spec(job: TaskJob) -> Manifest:
    options = job.options
    copies_runtime = job.image != job.runtime_image
    spec: Manifest = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": options.deadline_seconds or DEFAULT_DEADLINE_SECONDS,
        "terminationGracePeriodSeconds": options.grace_seconds or GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(DEFAULT_USER if options.run_as_user is None else options.run_as_user),
        "containers": [_task_container(job, copies_runtime=copies_runtime)],
        "volumes": _volumes(options, copies_runtime=copies_runtime),
    }
    if copies_runtime:
        spec["initContainers"] = [_runtime_container(job)]
    if options.service_account is not None:
        spec["serviceAccountName"] = options.service_account
    if options.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    if options.node_selector:
        spec["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in options.tolerations]
    return spec


def pod_security(user: int) -> Manifest:
    """The security context of a pod, as Pod Security "restricted" requires it unless the user is root."""
    return {
        "runAsNonRoot": user != 0,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Manifest:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _task_container(job: TaskJob, *, copies_runtime: bool) -> Manifest:
    options = job.options
    mounts = [{"name": "work", "mountPath": WORK_FOLDER}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the pod's own
    if copies_runtime:
        mounts.append({"name": "runtime", "mountPath": RUNTIME_FOLDER})
    if options.shared_memory is not None:
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108 - its own emptyDir
    container: Manifest = {
        "name": CONTAINER,
        "image": job.image,
        "command": [literal(word) for word in job.command],
        "workingDir": WORK_FOLDER,
        "env": _environment(job),
        "resources": resource_requirements(options),
        "volumeMounts": mounts,
        "securityContext": _container_security(),
        # The agent writes its result there; if the container can't run it, the end of the log says why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if options.image_pull_policy is not None:
        container["imagePullPolicy"] = options.image_pull_policy
    return container


def _runtime_container(job: TaskJob) -> Manifest:
    """The init container that copies the runtime into a pod whose image lacks it.

    It has the requests of the task's container, so that the pod, which gets the larger of the two, requests no more;
    only the task gets GPUs.
    """
    resources = resource_requirements(job.options)
    limits = {name: amount for name, amount in resources["limits"].items() if not name.endswith("/gpu")}
    return {
        "name": RUNTIME_CONTAINER,
        "image": job.runtime_image,
        "command": ["cp", "-R", f"{RUNTIME_FOLDER}/.", _COPIED_RUNTIME],
        "resources": {"requests": resources["requests"], "limits": limits},
        "volumeMounts": [{"name": "runtime", "mountPath": _COPIED_RUNTIME}],
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _volumes(options: PodOptions, *, copies_runtime: bool) -> list[Manifest]:
    names = ["work", "tmp", *(["runtime"] if copies_runtime else [])]
    volumes: list[Manifest] = [{"name": name, "emptyDir": {}} for name in names]
    if options.shared_memory is not None:
        memory = {"medium": "Memory", "sizeLimit": options.shared_memory}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
    return volumes


def _environment(job: TaskJob) -> list[Manifest]:
    plain = {"HOME": "/tmp", **job.environment, **(job.options.env or {})}  # noqa: S108
    if (path := plain.pop("PYTHONPATH", None)) is not None:
        plain[USERS_PYTHONPATH] = path
    return [
        *variables(plain, job.credentials_secret),
        # A divisor of 1 rounds up to whole cores: a task that requests 500m sees one.
        {"name": "K8SFLOW_CPUS", "valueFrom": _resource("requests.cpu")},
        {"name": "K8SFLOW_MEMORY_BYTES", "valueFrom": _resource("limits.memory")},
        {"name": "K8SFLOW_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "K8SFLOW_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "K8SFLOW_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]


def _resource(name: str) -> Manifest:
    return {"resourceFieldRef": {"containerName": CONTAINER, "resource": name, "divisor": "1"}}
