"""Checks of the cluster and our permissions, before anything is uploaded or created."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from http import HTTPStatus

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.kubeconfig import ClusterAccess, load_access

_PATIENCE_SECONDS = 2.0
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
OWNER_PERMISSIONS = (Permission("", "configmaps", ("create", "get", "patch", "delete")),)


def check_access(
    settings: Settings,
    *,
    access: ClusterAccess | None = None,
    permissions: tuple[Permission, ...] = PERMISSIONS + OWNER_PERMISSIONS,
) -> None:
    """Returns if the cluster is reachable and a run has the permissions that it needs.

    Args:
        settings: Context and namespace.
        access: The cluster; by default the one that the settings choose.
        permissions: The permissions needed. A run with another owner needs no ``OWNER_PERMISSIONS``, and a detached
            run none at all.

    Raises:
        ConfigurationError: There is no kubeconfig, or it is wrong.
        KubernetesError: The cluster is unreachable, the namespace or the Secret with the keys of the bucket doesn't
            exist, or a permission is missing.
    """
    access = access or load_access(settings.kubernetes_context, os.environ)
    asyncio.run(_check(access, settings, permissions))


async def _check(access: ClusterAccess, settings: Settings, permissions: tuple[Permission, ...]) -> None:
    namespace = settings.kubernetes_namespace
    async with KubernetesApi(access, patience_seconds=_PATIENCE_SECONDS) as api:
        await _check_version(api)
        await _check_namespace(api, namespace)
        if settings.credentials_secret is not None:
            await _check_secret(api, namespace, settings.credentials_secret)
        asked = [(permission, verb) for permission in permissions for verb in permission.verbs]
        allowed = await asyncio.gather(*(is_allowed(api, namespace, permission, verb) for permission, verb in asked))
    missing: dict[Permission, list[str]] = {}
    for (permission, verb), may in zip(asked, allowed, strict=True):
        if not may:
            missing.setdefault(permission, []).append(verb)
    if missing:
        raise _not_allowed(access, namespace, missing)


async def _check_version(api: KubernetesApi) -> None:
    try:
        version = await api.get("/version")
    except ApiStatusError:
        return  # some proxies hide it
    digits = ["".join(filter(str.isdecimal, str(version.get(part)))) for part in ("major", "minor")]
    if all(digits) and tuple(map(int, digits)) < OLDEST_VERSION:
        raise KubernetesError(
            f"the cluster ({api.access.origin}) is Kubernetes {version.get('gitVersion')}, which is too old.",
            cause="Its Jobs don't distinguish disruptions from failures, and may run two pods of a task at once.",
            advice=f"k8sflow needs Kubernetes {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} or newer.",
        )


async def _check_namespace(api: KubernetesApi, namespace: str) -> None:
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


async def _check_secret(api: KubernetesApi, namespace: str, name: str) -> None:
    """Checks that the Secret with the keys of the bucket exists; pods would wait for it and report that only later."""
    try:
        await api.get_metadata(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    except ApiStatusError as error:
        if error.status == HTTPStatus.FORBIDDEN:
            return  # a run needs no permission to read Secrets
        if error.status == HTTPStatus.NOT_FOUND:
            raise KubernetesError(
                f"there is no Secret {name!r} in namespace {namespace!r}.",
                cause=f"The setting credentials is secret:{name}.",
                advice=f"Create it: kubectl create secret generic {name} -n {namespace} "
                "--from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…",
            ) from error
        raise


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


def _not_allowed(access: ClusterAccess, namespace: str, missing: dict[Permission, list[str]]) -> KubernetesError:
    listed = "; ".join(f"{', '.join(verbs)} {permission.resource}" for permission, verbs in missing.items())
    rules = "\n".join(permission.as_yaml(verbs) for permission, verbs in missing.items())
    return KubernetesError(
        f"permissions for a run are missing in namespace {namespace!r}: {listed}.",
        cause=f"Checked with {access.origin}.",
        advice=f"Add these rules to a Role in the namespace that is bound to you:\n{rules}",
    )
