"""The objects of a run in the API server: their paths, their owner, and their end."""

from __future__ import annotations

from dataclasses import dataclass

from k8sflow.executors.context import RunContext
from k8sflow.kubernetes import labels, names
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.pod import GRACE_SECONDS


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


def owner_manifest(objects: RunObjects) -> Manifest:
    """The ConfigMap that owns all of a run's objects."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": objects.owner.rpartition("/")[2],
            "namespace": objects.namespace,
            "labels": labels.run_labels(objects.flow, objects.run),
            "annotations": labels.run_annotations(objects.flow, objects.run),
        },
    }


async def make_owner(api: KubernetesApi, objects: RunObjects) -> tuple[Manifest, bool]:
    """The ownerReference of a ConfigMap that owns all of the run's objects, and whether it is new."""
    path, _, name = objects.owner.rpartition("/")
    config_map, is_new = await api.create(path, owner_manifest(objects))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": config_map["metadata"]["uid"]}
    return reference, is_new


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
        return
    job = await api.get(f"{objects.jobs}/{last_finished}")
    reference = {key: job["metadata"][key] for key in ("name", "uid")}
    owners = [{"apiVersion": "batch/v1", "kind": "Job", **reference}]
    await api.patch(objects.owner, {"metadata": {"ownerReferences": owners}})


async def delete_run(api: KubernetesApi, context: RunContext) -> None:
    """Asks for the end of every object of the run that this executor makes."""
    objects = RunObjects.of(context)
    await api.delete(objects.jobs, label_selector=objects.selector)
    if any(options.grace_seconds is not None for options in context.pods.values()):
        # The grace is meant for a pod whose work continues elsewhere. Nobody waits for a cancelled run's.
        await api.delete(objects.pods, label_selector=objects.selector, grace_seconds=GRACE_SECONDS)
    if context.owner is None:
        await api.delete(objects.owner)
