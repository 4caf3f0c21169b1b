"""The objects of a run in the API server: their paths, their owner, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from k8sflow.debug_log import DebugLog
from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.executors.context import RunContext
from k8sflow.kubernetes import labels, names
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.pod import GRACE_SECONDS

ABANDONED_SECONDS = 7 * 24 * 3600
_RENEW_SECONDS = 24 * 3600
_log = DebugLog(__name__)


@dataclass(frozen=True)
class RunObjects:
    """The paths of a run's objects in the API server.

    Args:
        namespace: Their namespace.
        flow: The flow's name.
        run: The run's id.
    """

    namespace: str
    flow: str
    run: str

    @staticmethod
    def of(context: RunContext) -> RunObjects:
        """The objects of an executor's run."""
        return RunObjects(context.settings.kubernetes_namespace, context.record.flow, context.record.run)

    @property
    def selector(self) -> str:
        """The label selector that finds every one of them."""
        return labels.run_selector(self.flow, self.run)

    @property
    def jobs(self) -> str:
        """The path of the run's Jobs."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def pods(self) -> str:
        """The path of the run's pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def owner(self) -> str:
        """The path of the ConfigMap that owns the run's objects, when nothing else does."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{names.owner_name(flow=self.flow, run=self.run)}"

    @property
    def lease(self) -> str:
        """The path of the Job whose end is that of the ConfigMap, when no driver is left."""
        return f"{self.jobs}/{names.owner_name(flow=self.flow, run=self.run)}-lease"


def owner_manifest(objects: RunObjects, owners: Sequence[Manifest] = ()) -> Manifest:
    """The ConfigMap that owns all of a run's objects, and that others own."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": objects.owner.rpartition("/")[2],
            "namespace": objects.namespace,
            "labels": labels.run_labels(objects.flow, objects.run),
            "annotations": labels.run_annotations(objects.flow, objects.run),
            **({"ownerReferences": list(owners)} if owners else {}),
        },
    }


async def make_owner(api: KubernetesApi, objects: RunObjects, image: str) -> tuple[Manifest, bool]:
    """The ownerReference of a ConfigMap that owns all of the run's objects, and whether it is new.

    A driver can die at any moment, so the ConfigMap has an owner with an end from the beginning: a lease.
    """
    owners = await _make_lease(api, objects, image)
    path, _, name = objects.owner.rpartition("/")
    config_map, is_new = await api.create(path, owner_manifest(objects, owners))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": config_map["metadata"]["uid"]}
    return reference, is_new


async def keep_lease(api: KubernetesApi, objects: RunObjects) -> None:
    """Extends the lease each day, until it is cancelled."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        try:
            await _extend(api, objects, await api.get(objects.lease), _RENEW_SECONDS)
        except KubernetesError as error:
            _log.debug("The lease of the run's objects was not extended: %s", error.summary)


async def _make_lease(api: KubernetesApi, objects: RunObjects, image: str) -> list[Manifest]:
    """The ownerReferences of a Job without pods, which ends ``ABANDONED_SECONDS`` after the last driver's extension.

    No other kind of object has an end of its own. Nothing but its times matters; where a policy of the cluster refuses
    it, the run goes without.
    """
    try:
        lease, is_new = await api.create(objects.jobs, _lease_manifest(objects, image))
        if not is_new:
            await _extend(api, objects, lease, ABANDONED_SECONDS)
    except ApiStatusError as error:
        _log.debug("The run's objects have no lease: %s", error.summary)
        return []
    return [{"apiVersion": "batch/v1", "kind": "Job", **{key: lease["metadata"][key] for key in ("name", "uid")}}]


async def _extend(api: KubernetesApi, objects: RunObjects, lease: Manifest, seconds: int) -> None:
    """Adds to the lease's time; sums need no clock, so that a wrong one does no harm."""
    deadline = lease["spec"]["activeDeadlineSeconds"] + seconds
    await api.patch(objects.lease, {"spec": {"activeDeadlineSeconds": deadline}})


def _lease_manifest(objects: RunObjects, image: str) -> Manifest:
    container = {
        "name": "none",
        "image": image,
        "command": ["true"],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": objects.lease.rpartition("/")[2],
            "labels": {labels.MANAGED_BY: "k8sflow"},
            "annotations": labels.run_annotations(objects.flow, objects.run),
        },
        "spec": {
            "parallelism": 0,
            "completions": 1,
            "activeDeadlineSeconds": ABANDONED_SECONDS,
            "ttlSecondsAfterFinished": 0,
            "template": {"spec": pod},
        },
    }


async def close_ring(api: KubernetesApi, objects: RunObjects, last_finished: str | None) -> None:
    """Makes the Job that finished last the owner of the ConfigMap that owns it.

    Finished Jobs stay for people to look at until their time (ttlSecondsAfterFinished) is over. With this ring, the end
    of the last one takes the ConfigMap along, and that whatever is left; nobody has to come back for it.

    Args:
        api: The client.
        objects: The run.
        last_finished: The Job; None if there is none, and the ConfigMap can be deleted.
    """
    if last_finished is None:
        await api.delete(objects.owner)
        await api.delete(objects.lease)
        return
    job = await api.get(f"{objects.jobs}/{last_finished}")
    reference = {key: job["metadata"][key] for key in ("name", "uid")}
    owners = [{"apiVersion": "batch/v1", "kind": "Job", **reference}]
    await api.patch(objects.owner, {"metadata": {"ownerReferences": owners}})
    await api.delete(objects.lease)


async def delete_run(api: KubernetesApi, context: RunContext) -> None:
    """Asks for the end of every object of the run that this executor makes."""
    objects = RunObjects.of(context)
    await api.delete(objects.jobs, label_selector=objects.selector)
    if any(options.grace_seconds is not None for options in context.pods.values()):
        # The grace is meant for a pod whose work continues elsewhere. Nobody waits for a cancelled run's.
        await api.delete(objects.pods, label_selector=objects.selector, grace_seconds=GRACE_SECONDS)
    if context.owner is None:
        await api.delete(objects.owner)
        await api.delete(objects.lease)
