"""The preflight check of the systems that a run uses, each by its executor, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from k8sflow.config import Settings
from k8sflow.runtime.placement import Placement
from k8sflow.storage.objects import ObjectStore

if TYPE_CHECKING:
    from k8sflow.kubernetes.findings import Finding


def check_systems(
    placement: Placement, settings: Settings, flow: str, *, is_detached: bool = False
) -> tuple[ObjectStore, Sequence[Finding]]:
    """The run's bucket, once the cluster and the job queues can be used from here, and warnings about the run.

    Args:
        placement: Where the steps run; at least one of them elsewhere than on this machine.
        settings: The settings.
        flow: The flow's name.
        is_detached: Whether the driver runs in the cluster, with rights of its own.

    Raises:
        K8sflowError: One of them can't be used.
    """
    store: ObjectStore | None = None
    if placement.batch:
        from k8sflow.executors.batch import preflight as batch  # noqa: PLC0415  only here is boto3 needed

        store = batch.check(settings, placement.batch, placement.together)
    if store is not None and not placement.uses_kubernetes:
        return store, ()
    from k8sflow.executors.kubernetes import preflight as kubernetes  # noqa: PLC0415  only here is the API needed

    return kubernetes.check(
        placement.inside(settings),
        placement.pods,
        flow=flow,
        is_detached=is_detached,
        has_gangs=placement.has_gangs,
    )
