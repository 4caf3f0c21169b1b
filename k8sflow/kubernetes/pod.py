"""The pod of a task's Job: functions from values to dictionaries.

The container's root file system stays writable: the pod runs as a user that owns nothing in it, and images whose
tools write beside themselves keep working. The work folder and /tmp (also HOME) are emptyDirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from k8sflow.flow.decorators.pod_options import DEFAULT_TMPFS_PATH, RUNTIME_FOLDER, WORK_FOLDER, PodOptions
from k8sflow.flow.decorators.pod_parsers import GPU_MODEL_LABELS, GPU_RESOURCES
from k8sflow.kubernetes import labels, pod_template
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.volumes import RUNTIME, volumes
from k8sflow.task.host.launch import agent_words
from k8sflow.task.host.pod_environment import USERS_PYTHONPATH

if TYPE_CHECKING:
    from k8sflow.kubernetes.job import TaskJob

CONTAINER = "task"
RUNTIME_CONTAINER = "k8sflow-runtime"
COMPUTE_POOL = "outerbounds.co/compute-pool"

DEFAULT_USER = 65532
DEFAULT_DEADLINE_SECONDS = 5 * 24 * 3600
GRACE_SECONDS = 5
_COPIED_RUNTIME = "/runtime"
_ORDINARY_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def agent_command(options: PodOptions) -> tuple[str, ...]:
    """The words that start the agent in the task's container; its arguments follow."""
    return agent_words("k8sflow.task.host.agent", options.executable)


def pod(job: TaskJob) -> Manifest:
    """The metadata and the spec of the pod, with the step's pod template merged into them."""
    own: Manifest = {
        "metadata": {"labels": pod_labels(job), "annotations": pod_annotations(job)},
        "spec": _spec(job),
    }
    return own if job.options.pod_template is None else pod_template.merged(own, job.options.pod_template)


def pod_labels(job: TaskJob) -> dict[str, str]:
    """The labels of the Job and the pod."""
    together = labels.TOGETHER_LABELS if job.service else {}
    return {**job.keys.labels(), **(job.options.labels or {}), **labels.task_labels(job.tasks), **together}


def pod_annotations(job: TaskJob) -> dict[str, str]:
    """The annotations of the Job and the pod."""
    return {**(job.options.annotations or {}), **labels.task_annotations(job.tasks)}


def literal(text: str) -> str:
    """Escapes a variable's value or a word of a command, so that the container gets it as written.

    The kubelet expands ``$(NAME)`` and turns ``$$`` into one dollar sign:
    https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/#envvar-v1-core
    """
    return text.replace("$", "$$")


def variables(values: Mapping[str, str], keys: BucketKeys) -> list[Manifest]:
    """Environment variables of a container: literal values, and those by which it finds the keys of the bucket."""
    return [
        *({"name": name, "value": literal(value)} for name, value in values.items()),
        *(variable for variable in keys.variables() if variable["name"] not in values),
    ]


def resource_requirements(options: PodOptions) -> Manifest:
    """Requests and limits: both for memory, disk and devices; only a request for cores, unless a limit is asked for.

    A limit on cores would throttle a task that could use idle ones; unlimited memory can take the node down.
    """
    requests: dict[str, Any] = {"cpu": options.cpu, "memory": options.memory}
    limits: dict[str, Any] = {"memory": options.most_memory}
    most_cores = options.cpu if options.qos == "Guaranteed" else options.cpu_limit
    if most_cores is not None:
        limits["cpu"] = most_cores
    if options.disk is not None:
        requests["ephemeral-storage"] = limits["ephemeral-storage"] = options.disk
    if options.gpu:
        vendor = options.gpu_vendor or "nvidia"
        limits[GPU_RESOURCES.get(vendor, vendor)] = str(options.gpu)
    limits.update(options.extended_resources or {})
    claims = [{"name": name} for name in options.resource_claims or {}]
    return {"requests": requests, "limits": limits, **({"claims": claims} if claims else {})}


def pod_security(user: int) -> Manifest:
    """The security context of a pod, as Pod Security "restricted" requires it unless the user is root."""
    return {
        "runAsNonRoot": user != 0,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _spec(job: TaskJob) -> Manifest:
    options = job.options
    copies_runtime = job.image != job.runtime_image and not options.runtime_in_image
    spec: Manifest = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": options.deadline_seconds or DEFAULT_DEADLINE_SECONDS,
        "terminationGracePeriodSeconds": options.grace_seconds or GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(DEFAULT_USER if options.run_as_user is None else options.run_as_user),
        "containers": [_task_container(job, copies_runtime=copies_runtime)],
        "volumes": [
            *(volume.volume() for volume in volumes(options, copies_runtime=copies_runtime)),
            *job.keys.volumes(),
        ],
    }
    if copies_runtime:
        spec["initContainers"] = [_runtime_container(job)]
    asked = {**_scheduling(job), **_network(options), "serviceAccountName": options.service_account}
    asked["subdomain"] = job.service
    asked["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets or ()]
    return {**spec, **{name: value for name, value in asked.items() if value}}


def _scheduling(job: TaskJob) -> Manifest:
    options = job.options
    own = {"labelSelector": {"matchLabels": labels.step_labels(job.tasks.template)}}
    return {
        "nodeSelector": _node_selector(options),
        "tolerations": [dict(toleration) for toleration in options.tolerations or ()],
        "affinity": dict(options.affinity or {}),
        "topologySpreadConstraints": [{**own, **constraint} for constraint in options.topology_spread or ()],
        "priorityClassName": options.priority_class,
        "runtimeClassName": options.runtime_class,
        "resourceClaims": [{"name": name, **source} for name, source in (options.resource_claims or {}).items()],
    }


def _network(options: PodOptions) -> Manifest:
    aliases = (options.host_aliases or {}).items()
    return {
        "hostAliases": [{"ip": address, "hostnames": list(hosts)} for address, hosts in aliases],
        "dnsPolicy": options.dns_policy,
        "dnsConfig": dict(options.dns_config or {}),
    }


def _node_selector(options: PodOptions) -> dict[str, str]:
    selector = dict(options.node_selector or {})
    if options.compute_pool is not None:
        selector[COMPUTE_POOL] = options.compute_pool
    if options.gpu_model is not None:
        label, equals, model = options.gpu_model.partition("=")
        if not equals:
            label, model = GPU_MODEL_LABELS[options.gpu_vendor or "nvidia"], options.gpu_model
        selector[label] = model
    return selector


def _container_security(options: PodOptions | None = None) -> Manifest:
    """The security context of a container; that of the task's has what the user asks for."""
    found: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    asked = options.security_context if options is not None else None
    if asked:
        found |= asked
        if asked.get("privileged") and "allowPrivilegeEscalation" not in asked:
            del found["allowPrivilegeEscalation"]  # the API refuses to forbid it to a privileged container
        if asked.get("runAsUser") == 0:
            found.setdefault("runAsNonRoot", False)
    return found


def _task_container(job: TaskJob, *, copies_runtime: bool) -> Manifest:
    options = job.options
    container: Manifest = {
        "name": CONTAINER,
        "image": job.image,
        "command": [literal(word) for word in job.command],
        "workingDir": WORK_FOLDER,
        "env": _environment(job),
        "resources": resource_requirements(options),
        "volumeMounts": [
            *(volume.mount() for volume in volumes(options, copies_runtime=copies_runtime)),
            *job.keys.mounts(),
        ],
        "securityContext": _container_security(options),
        # The agent writes its result there; if the container can't run it, the end of the log says why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    sources: list[Manifest] = [{"configMapRef": {"name": name}} for name in options.config_maps or ()]
    sources += [{"secretRef": {"name": name}} for name in options.secrets or ()]
    if sources:
        container["envFrom"] = sources
    if options.port is not None:
        container["ports"] = [{"containerPort": options.port}]
    if options.image_pull_policy is not None:
        container["imagePullPolicy"] = options.image_pull_policy
    return container


def _runtime_container(job: TaskJob) -> Manifest:
    """The init container that copies the runtime into a pod whose image lacks it.

    It has the requests of the task's container, so that the pod, which gets the larger of the two, requests no more;
    only the task gets devices.
    """
    resources = resource_requirements(job.options)
    limits = {name: amount for name, amount in resources["limits"].items() if name in _ORDINARY_RESOURCES}
    return {
        "name": RUNTIME_CONTAINER,
        "image": job.runtime_image,
        "command": ["cp", "-R", f"{RUNTIME_FOLDER}/.", _COPIED_RUNTIME],
        "resources": {"requests": resources["requests"], "limits": limits},
        "volumeMounts": [{"name": RUNTIME, "mountPath": _COPIED_RUNTIME}],
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _environment(job: TaskJob) -> list[Manifest]:
    options = job.options
    plain = {"HOME": "/tmp", **job.environment, **_temporary(options), **(options.env or {})}  # noqa: S108
    if (path := plain.pop("PYTHONPATH", None)) is not None:
        plain[USERS_PYTHONPATH] = path
    return [
        *variables(plain, job.keys),
        # A divisor of 1 rounds up to whole cores: a task that requests 500m sees one.
        {"name": "K8SFLOW_CPUS", "valueFrom": _resource("requests.cpu")},
        {"name": "K8SFLOW_MEMORY_BYTES", "valueFrom": _resource("limits.memory")},
        *([{"name": "K8SFLOW_GPUS", "value": str(options.gpu)}] if options.gpu else []),
        {"name": "K8SFLOW_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "K8SFLOW_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "K8SFLOW_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]


def _temporary(options: PodOptions) -> dict[str, str]:
    """The variables that name the folder in memory: always for ``current.tempdir``, TMPDIR unless it is turned off."""
    if not options.has_tmpfs:
        return {}
    folder = options.tmpfs_path or DEFAULT_TMPFS_PATH
    return {"K8SFLOW_TEMPDIR": folder, **({} if options.tmpfs_tempdir is False else {"TMPDIR": folder})}


def _resource(name: str) -> Manifest:
    return {"resourceFieldRef": {"containerName": CONTAINER, "resource": name, "divisor": "1"}}
