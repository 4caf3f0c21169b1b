"""Checks of the cluster and our permissions, before anything is uploaded or created."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, ApiUnreachableError, KubernetesError
from k8sflow.flow.decorators.image_name import mistake
from k8sflow.kubernetes.admission import check_admission
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.bucket_address import check_address
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.findings import Finding, as_error, of_steps
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.kubeconfig import ClusterAccess, load_access
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.node_fit import check_nodes
from k8sflow.kubernetes.pod import pod
from k8sflow.kubernetes.queue import check_queues
from k8sflow.kubernetes.references import Reference, check_references, references
from k8sflow.kubernetes.server_check import check_pods, version_of

PATIENCE_SECONDS = 2.0
_CONNECTIONS = 8  # each costs a TLS handshake
_MOST_NODES = 500
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
OLDEST_VERSION = (1, 29)  # podReplacementPolicy is on by default from here, podFailurePolicy since 1.26


@dataclass(frozen=True)
class Permission:
    """A rule of a Role."""

    group: str
    resource: str
    verbs: tuple[str, ...]

    def as_yaml(self, verbs: list[str]) -> str:
        """The rule for some of its verbs, as an item of a Role's list."""
        return f'- apiGroups: ["{self.group}"]\n  resources: ["{self.resource}"]\n  verbs: [{", ".join(verbs)}]'


PERMISSIONS = (
    Permission("batch", "jobs", ("create", "get", "list", "patch", "delete", "deletecollection")),
    Permission("", "pods", ("get", "list", "watch", "delete")),
    Permission("", "pods/log", ("get",)),
)
# To cancel a run whose pods have a grace of their own.
GRACE_PERMISSIONS = (Permission("", "pods", ("deletecollection",)),)
# To let the pods of a num_parallel step find each other.
SERVICE_PERMISSIONS = (Permission("", "services", ("create", "get")),)
OWNER_PERMISSIONS = (Permission("", "configmaps", ("create", "get", "patch", "delete")),)


def check_access(
    settings: Settings,
    *,
    access: ClusterAccess | None = None,
    permissions: tuple[Permission, ...] = PERMISSIONS + OWNER_PERMISSIONS,
    jobs: Mapping[str, TaskJob] | None = None,
) -> list[Finding]:
    """The warnings about a run on the cluster, if nothing is wrong that would fail it.

    Args:
        settings: Context and namespace.
        access: The cluster; by default the one that the settings choose.
        permissions: The permissions needed. A run with another owner needs no ``OWNER_PERMISSIONS``, and a detached
            run none at all.
        jobs: A Job of each step, which isn't created.

    Raises:
        ConfigurationError: There is no kubeconfig, or it is wrong.
        KubernetesError: The cluster is unreachable, or something is wrong; the error has all of it.
    """
    access = access or load_access(settings.kubernetes_context, os.environ)
    findings = asyncio.run(_check(access, settings, permissions, jobs or {}))
    if errors := [finding for finding in findings if finding.is_error]:
        raise as_error(errors)
    return findings


async def _check(
    access: ClusterAccess, settings: Settings, permissions: tuple[Permission, ...], jobs: Mapping[str, TaskJob]
) -> list[Finding]:
    async with KubernetesApi(access, patience_seconds=PATIENCE_SECONDS, connections=_CONNECTIONS) as api:
        return await inspect(api, settings, permissions, jobs)


async def inspect(
    api: KubernetesApi, settings: Settings, permissions: tuple[Permission, ...], jobs: Mapping[str, TaskJob]
) -> list[Finding]:
    """Everything that is wrong for a run; what may not be read is not checked.

    Args:
        api: The API server.
        settings: The settings, with the run's namespace.
        permissions: The permissions needed.
        jobs: A Job of each step.

    Raises:
        KubernetesError: The API server doesn't answer.
    """
    namespace = settings.kubernetes_namespace
    pods = {step: pod(job) for step, job in jobs.items()}
    judged = {step: job for step, job in jobs.items() if job.options.needs_the_server}
    basic, *others = await asyncio.gather(
        check_basics(api, namespace),
        check_permissions(api, namespace, permissions),
        check_references(api, namespace, _references(settings, pods)),
        check_address(api, settings),
        _check_pods(api, namespace, judged, pods),
        _check_nodes(api, pods),
        check_queues(api, namespace, {step: job.options.queue for step, job in jobs.items() if job.options.queue}),
    )
    if basic:
        return basic  # the others follow from it
    findings = [*_images(pods), *(finding for found in others for finding in found)]
    return _without_echoes(findings)


def _references(settings: Settings, pods: Mapping[str, Manifest]) -> dict[str, set[Reference]]:
    """The objects that the steps' pods refer to, and those that the settings name."""
    keys = BucketKeys.of(settings)
    of_settings = {Reference("secrets", keys.secret or "", name) for name in keys.names}
    known = of_settings | ({Reference("secrets", keys.secret)} if keys.secret is not None and keys.volumes() else set())
    of_steps = {step: references(template["spec"]) - known for step, template in pods.items()}
    return {"the setting credentials": of_settings, **of_steps}


def _without_echoes(findings: list[Finding]) -> list[Finding]:
    """The findings without refusals of pods for a service account that is already known to be missing."""
    is_known = any(finding.summary.startswith("there is no service account") for finding in findings)
    return [finding for finding in findings if not (is_known and "looking up service account" in finding.cause)]


def _images(pods: Mapping[str, Manifest]) -> Iterator[Finding]:
    used: dict[str, list[str]] = {}
    for step, template in pods.items():
        spec = template["spec"]
        for image in {each["image"] for each in (*(spec.get("initContainers") or ()), *spec["containers"])}:
            used.setdefault(image, []).append(step)
    for image, steps in used.items():
        if why := mistake(image):
            yield Finding(
                f"the image {image!r} of {of_steps(steps)} can't exist: {why}.",
                advice="The image is set by @kubernetes(image=…), --with kubernetes:image=…, kubernetes_image or "
                "kubernetes_runtime_image.",
            )


async def check_basics(api: KubernetesApi, namespace: str) -> list[Finding]:
    """The findings about the cluster's version and the namespace, without which nothing else can be judged."""
    try:
        await asyncio.gather(_check_version(api), check_namespace(api, namespace))
    except (ApiStatusError, ApiUnreachableError):
        raise
    except KubernetesError as error:
        return [Finding.of(error)]
    return []


async def check_permissions(api: KubernetesApi, namespace: str, permissions: tuple[Permission, ...]) -> list[Finding]:
    """One finding with everything that may not be done, and the rules that allow it."""
    asked = [(permission, verb) for permission in permissions for verb in permission.verbs]
    allowed = await asyncio.gather(*(is_allowed(api, namespace, permission, verb) for permission, verb in asked))
    missing: dict[Permission, list[str]] = {}
    for (permission, verb), may in zip(asked, allowed, strict=True):
        if not may:
            missing.setdefault(permission, []).append(verb)
    return [_not_allowed(api.access, namespace, missing)] if missing else []


async def _check_pods(
    api: KubernetesApi, namespace: str, judged: Mapping[str, TaskJob], pods: Mapping[str, Manifest]
) -> list[Finding]:
    """The findings about pods that the server would refuse or change; about each step, those of its Job come first."""
    refused = await check_pods(api, judged)
    others = {step: template for step, template in pods.items() if step not in refused}
    return [*dict.fromkeys(refused.values()), *await check_admission(api, namespace, others)]


async def _check_nodes(api: KubernetesApi, pods: Mapping[str, Manifest]) -> list[Finding]:
    """The warnings about nodes, where they may be listed; a large cluster has all kinds of them."""
    if not pods:
        return []
    try:
        page = await api.get("/api/v1/nodes", {"limit": str(_MOST_NODES)})
    except ApiStatusError:
        return []  # few users may list nodes
    return [] if page["metadata"].get("continue") else check_nodes(page["items"], pods)


async def _check_version(api: KubernetesApi) -> None:
    try:
        version = await api.get("/version")
    except ApiStatusError:
        return  # some proxies hide it
    found = version_of(version)
    if found is not None and found < OLDEST_VERSION:
        raise KubernetesError(
            f"the cluster ({api.access.origin}) is Kubernetes {version.get('gitVersion')}, which is too old.",
            cause="Its Jobs don't distinguish disruptions from failures, and may run two pods of a task at once.",
            advice=f"k8sflow needs Kubernetes {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} or newer.",
        )


async def check_namespace(api: KubernetesApi, namespace: str) -> None:
    """Returns if a namespace exists and stays, or may not be looked at.

    Raises:
        KubernetesError: It doesn't exist, or is being deleted.
    """
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}")
    except ApiStatusError as error:
        if error.status == HTTPStatus.FORBIDDEN:
            return  # with permissions in one namespace only, namespaces can't be read
        if error.status == HTTPStatus.NOT_FOUND:
            raise KubernetesError(
                f"the cluster ({api.access.origin}) has no namespace {namespace!r}.",
                advice=f"Create it (`kubectl create namespace {namespace}`), or set kubernetes_namespace "
                "(K8SFLOW_KUBERNETES_NAMESPACE, --with kubernetes:namespace=…).",
            ) from error
        raise
    if found["metadata"].get("deletionTimestamp"):
        raise KubernetesError(
            f"the namespace {namespace!r} is being deleted.",
            advice="Wait until it is deleted and create it again, or use another one.",
        )


async def is_allowed(api: KubernetesApi, namespace: str, permission: Permission, verb: str) -> bool:
    """Asks the API server whether we may use one verb of a permission in a namespace."""
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
    }
    review = await api.post(
        _REVIEWS,
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool(review.get("status", {}).get("allowed"))


def _not_allowed(access: ClusterAccess, namespace: str, missing: dict[Permission, list[str]]) -> Finding:
    listed = "; ".join(f"{', '.join(verbs)} {permission.resource}" for permission, verbs in missing.items())
    rules = "\n".join(permission.as_yaml(verbs) for permission, verbs in missing.items())
    return Finding(
        f"permissions for a run are missing in namespace {namespace!r}: {listed}.",
        f"Checked with {access.origin}.",
        f"Add these rules to a Role in the namespace that is bound to you:\n{rules}",
    )
