"""The cluster: its API server, the namespace, permissions, quotas, and what the settings name in it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.executors.bucket import server_of
from k8sflow.executors.kubernetes.preflight import sample_job
from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.image_name import mistake
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.kubernetes import flowrun
from k8sflow.kubernetes.admission import check_admission
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.bucket_address import check_address
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.findings import Finding
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.pod import pod
from k8sflow.kubernetes.preflight import (
    OWNER_PERMISSIONS,
    PERMISSIONS,
    Permission,
    check_basics,
    check_permissions,
    is_allowed,
)
from k8sflow.kubernetes.references import Reference, check_references
from k8sflow.runtime.doctor.checklist import ChecklistRow, Section
from k8sflow.version import VERSION

SECTION = Section("Cluster")
_CONTROLLER = Section("Controller (for --detach only)")
_ENFORCE = "pod-security.kubernetes.io/enforce"
_PODS = Permission("", "pods", ("create",))


def doctors_job(settings: Settings, **options: Any) -> TaskJob:
    """A small Job with the images and the service account of the settings."""
    asked = PodOptions(
        image=settings.kubernetes_image or settings.kubernetes_runtime_image,
        service_account=settings.kubernetes_service_account,
        cpu="100m",
        memory="256M",
        **options,
    )
    return sample_job("doctor", "bucket", merge(asked, DEFAULT_OPTIONS), settings)


async def rows(api: KubernetesApi, settings: Settings) -> AsyncIterator[ChecklistRow]:
    """The checks of the cluster; those that need more permissions than the user has are skipped."""
    namespace = settings.kubernetes_namespace
    yield SECTION.ok("kubeconfig", f"{api.access.origin}")
    start = time.monotonic()
    try:
        version = await api.get("/version")
    except KubernetesError as error:
        yield SECTION.failed("API server", error)
        return
    milliseconds = round((time.monotonic() - start) * 1000)
    name = str(version.get("gitVersion"))
    yield SECTION.ok("API server", f"{api.access.server} is Kubernetes {name} ({milliseconds} ms)")
    if basics := await check_basics(api, namespace):
        for row in SECTION.of("namespace", basics, ""):
            yield row
        return
    yield SECTION.ok("namespace", await _namespace(api, namespace))
    permissions = PERMISSIONS + OWNER_PERMISSIONS
    count = sum(len(permission.verbs) for permission in permissions)
    findings = await check_permissions(api, namespace, permissions)
    for row in SECTION.of("permissions", findings, f"all {count} that a run needs"):
        yield row
    for row in await _named(api, settings):
        yield row
    for row in [*await _quotas(api, namespace), *await _admission(api, settings)]:
        yield row
    yield await _controller(api)


async def _namespace(api: KubernetesApi, namespace: str) -> str:
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}")
    except ApiStatusError:
        return f"{namespace} (it may not be read, so its Pod Security level is unknown)"
    level = (found["metadata"].get("labels") or {}).get(_ENFORCE)
    return f"{namespace}, with Pod Security {level!r}" if level else f"{namespace}, without a Pod Security level"


async def _named(api: KubernetesApi, settings: Settings) -> list[ChecklistRow]:
    """The Secret with its keys, the service account, the images and the pods' endpoint, as the settings name them."""
    namespace, keys, account = (
        settings.kubernetes_namespace,
        BucketKeys.of(settings),
        settings.kubernetes_service_account,
    )
    secret = keys.secret
    rows = []
    if secret is None:
        rows.append(SECTION.ok("bucket keys", "from the service account (workload identity)"))
    else:
        wanted = {Reference("secrets", secret, key) for key in keys.names}
        findings = await check_references(api, namespace, {"the setting credentials": wanted})
        may = await is_allowed(api, namespace, Permission("", "secrets", ("get",)), "get")
        text = (
            f"Secret {secret} has {' and '.join(keys.names)}" if may else f"Secret {secret}, which may not be read here"
        )
        rows += SECTION.of("bucket keys", findings, text)
    if account is not None:
        named = {"the setting kubernetes_service_account": {Reference("serviceaccounts", account)}}
        rows += SECTION.of("service account", await check_references(api, namespace, named), account)
    images = {settings.kubernetes_image, settings.kubernetes_runtime_image} - {None}
    wrong = [
        Finding(f"the image {image!r} can't exist: {why}.", advice="Correct the setting.")
        for image in sorted(map(str, images))
        if (why := mistake(image))
    ]
    rows += SECTION.of("image names", wrong, "could exist; the pod below shows whether they do")
    inside = server_of(settings, in_cluster=True)
    rows += SECTION.of("pods' endpoint", await check_address(api, settings), inside)
    return rows


async def _quotas(api: KubernetesApi, namespace: str) -> list[ChecklistRow]:
    try:
        quotas, _ = await api.list(f"/api/v1/namespaces/{namespace}/resourcequotas")
    except ApiStatusError:
        return [SECTION.skipped("quotas", "they may not be read")]
    if not quotas:
        return [SECTION.ok("quotas", "none")]
    rows = []
    for quota in quotas:
        status = quota.get("status") or {}
        used, hard = status.get("used") or {}, status.get("hard") or {}
        full = [key for key in hard if quantity.parse(used.get(key, "0")) >= quantity.parse(hard[key])]
        listed = ", ".join(f"{key} {used.get(key, '0')} of {hard[key]}" for key in sorted(hard))
        name = quota["metadata"]["name"]
        if full:
            advice = "Pods wait until others end, or the quota is raised."
            rows.append(SECTION.warning("quotas", f"{name} is used up: {listed}", advice))
        else:
            rows.append(SECTION.ok("quotas", f"{name}: {listed}"))
    return rows


async def _admission(api: KubernetesApi, settings: Settings) -> list[ChecklistRow]:
    namespace = settings.kubernetes_namespace
    if not await is_allowed(api, namespace, _PODS, "create"):
        return [SECTION.skipped("admission", "a dry run of a pod needs the permission to create pods")]
    findings = await check_admission(api, namespace, {"doctor": pod(doctors_job(settings))})
    return SECTION.of("admission", findings, "a small pod would be admitted")


async def _controller(api: KubernetesApi) -> ChecklistRow:
    try:
        await api.get(f"/apis/{flowrun.GROUP}")
    except ApiStatusError:
        return _CONTROLLER.skipped("controller", "not installed")
    try:
        found, _ = await api.list("/apis/apps/v1/deployments", label_selector="app.kubernetes.io/name=k8sflow")
    except ApiStatusError:
        return _CONTROLLER.skipped("controller", "FlowRuns are installed; whether a controller runs may not be read")
    if not found:
        return _CONTROLLER.warning(
            "controller",
            "FlowRuns are installed, but no controller is.",
            "Install it (`helm install k8sflow charts/k8sflow`), or detached runs never start.",
        )
    deployment = found[0]
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    version = (deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/version", "unknown")
    text = f"version {version} ({image}) in namespace {deployment['metadata']['namespace']}"
    if not (deployment.get("status") or {}).get("readyReplicas"):
        return _CONTROLLER.warning("controller", f"{text} is not ready", "`kubectl describe deployment` shows why.")
    if version != VERSION:
        advice = "Upgrade the older of the two: detached runs are started by one and driven by the other."
        return _CONTROLLER.warning("controller", f"{text}; k8sflow here is {VERSION}", advice)
    return _CONTROLLER.ok("controller", text)
