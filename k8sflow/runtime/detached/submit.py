"""Detaching a run: its FlowRun is created on the user's machine, and the controller in the cluster accepts it."""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, KubernetesError, RunError
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.flowrun import Phase
from k8sflow.kubernetes.kubeconfig import ClusterAccess, load_access
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.preflight import Permission, is_allowed
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.session import Session

_PATIENCE_SECONDS = 5.0
_TAKEN_UP_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_NEEDED = Permission(flowruns.GROUP, flowruns.PLURAL, ("create", "get"))
_INSTALL = "helm install k8sflow charts/k8sflow --namespace k8sflow --create-namespace"


def check_detachable(settings: Settings, namespace: str) -> None:
    """Returns if a run can be detached in the namespace.

    Raises:
        ConfigurationError: There is no kubeconfig, or it is wrong.
        KubernetesError: The CRD or the controller is missing, or FlowRuns may not be created.
    """
    access = load_access(settings.kubernetes_context, os.environ)
    asyncio.run(_check(access, namespace))


def submit(session: Session, console: Console) -> None:
    """Creates the run's FlowRun, waits until the controller has accepted it, and shows the next steps.

    Raises:
        RunError: The controller refuses the run.
        KubernetesError: The FlowRun can't be created.
    """
    settings, namespace, pathspec = session.settings, session.placement.namespace, session.pathspec
    manifest = flowruns.flowrun_manifest(session.record, settings, namespace, session.store.url)
    status = asyncio.run(_create(load_access(settings.kubernetes_context, os.environ), manifest))
    name = manifest["metadata"]["name"]
    if status.get("phase") == Phase.FAILED.value:
        summary, _, rest = str(status.get("message") or "").partition("\n")
        raise RunError(f"the controller refuses {pathspec}: {summary}", advice=rest)
    in_namespace = f"-n {namespace}" + (
        f" --context {settings.kubernetes_context}" if settings.kubernetes_context is not None else ""
    )
    console.say(f"{pathspec} is detached as FlowRun {name}; it runs in the cluster, without this machine.")
    if not status:
        console.say(
            f"No controller has accepted it within {_TAKEN_UP_SECONDS:.0f} s. It starts when there is one that watches "
            f"the namespace {namespace}:\n"
            f"  kubectl get deployments --all-namespaces -l app.kubernetes.io/name=k8sflow",
            Tone.NOTICE,
        )
    console.say(
        f"  how far it is:  kubectl get flowrun {name} {in_namespace}\n"
        f"  its output:     kubectl logs {in_namespace} -f job/{flowruns.driver_job_name(name)}\n"
        f"  cancel it:      kubectl delete flowrun {name} {in_namespace}\n"
        f'  its results:    k8sflow.Flow("{session.record.flow}")["{session.record.run}"].data'
    )


async def _check(access: ClusterAccess, namespace: str) -> None:
    async with KubernetesApi(access, patience_seconds=_PATIENCE_SECONDS) as api:
        try:
            resources = (await api.get(f"/apis/{flowruns.API_VERSION}"))["resources"]
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            resources = []
        if not any(resource["name"] == flowruns.PLURAL for resource in resources):
            raise KubernetesError(
                f"the cluster ({access.origin}) has no FlowRuns, so a run can't be handed to it.",
                cause="The k8sflow controller is not installed there.",
                advice=f"A cluster admin has to install it, from k8sflow's checkout:\n  {_INSTALL}",
            )
        asked = [is_allowed(api, namespace, _NEEDED, verb) for verb in _NEEDED.verbs]
        if not all(await asyncio.gather(*asked)):
            raise KubernetesError(
                f"you may not create and read FlowRuns in the namespace {namespace!r}.",
                cause=f"Asked as {access.origin}.",
                advice="The chart has a Role for it, which a RoleBinding gives to you:\n"
                f"  kubectl create rolebinding k8sflow-user -n {namespace} --role=k8sflow-user --user=YOU",
            )
        await _check_watched(api, namespace)


async def _check_watched(api: KubernetesApi, namespace: str) -> None:
    """Looks for the drivers' service account, which the chart makes wherever its controller looks."""
    account = flowruns.DRIVER_SERVICE_ACCOUNT
    try:
        await api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}")
    except ApiStatusError as error:
        if error.status == HTTPStatus.FORBIDDEN:
            return  # a user who can only create FlowRuns finds out when the FlowRun isn't accepted
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        raise KubernetesError(
            f"no controller looks after FlowRuns in the namespace {namespace!r}: "
            f"it has no service account {account!r}.",
            advice="Use a namespace that one watches (kubernetes_namespace), or have this one added to it, with those "
            "that it watches already:\n"
            f"  helm upgrade k8sflow charts/k8sflow --namespace k8sflow --reuse-values "
            f"--set 'watchNamespaces={{{namespace}}}'",
        ) from error


async def _create(access: ClusterAccess, manifest: Manifest) -> Manifest:
    """Creates the FlowRun; its first status, or nothing where no controller takes it up in time."""
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    clock = asyncio.get_running_loop().time
    async with KubernetesApi(access) as api:
        found, _ = await api.create(flowruns.collection_path(namespace), manifest)
        deadline = clock() + _TAKEN_UP_SECONDS
        while not found.get("status") and clock() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            found = await api.get(flowruns.object_path(namespace, name))
    status: Manifest = found.get("status") or {}
    return status
