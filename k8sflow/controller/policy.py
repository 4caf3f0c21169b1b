"""What the platform's people allow FlowRuns to ask for.

A FlowRun makes the controller start a pod, so whoever may create FlowRuns borrows the controller's rights. What such a
pod may be is an allow-list, here and in the CRD's schema; everything else of it is the controller's. What tasks ask for
is in the run's record, which the controller doesn't read: the driver does, and holds it to the service accounts that
it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k8sflow.kubernetes.flowrun import DRIVER_SERVICE_ACCOUNT, TASK_SERVICE_ACCOUNT


@dataclass(frozen=True)
class Policy:
    """How driver pods are made, and what a FlowRun may choose.

    Args:
        image: The k8sflow image, of drivers whose FlowRun names none.
        driver_images: Other images that a FlowRun may name for its driver.
        driver_service_account: Service account of drivers.
        task_service_account: Service account of task pods whose flow names none.
        task_service_accounts: Others that a flow may name for its tasks.
        image_pull_policy: Of the driver's image.
        image_pull_secrets: For the driver's image.
        driver_cpu: Cores that a driver requests, where its FlowRun doesn't say.
        driver_memory: Memory that a driver requests, also its limit.
        driver_restarts: How often a driver that died is started again; evictions are free.
        ttl_seconds: How long the Job of a finished driver stays, with its log.
    """

    image: str
    driver_images: tuple[str, ...] = ()
    driver_service_account: str = DRIVER_SERVICE_ACCOUNT
    task_service_account: str = TASK_SERVICE_ACCOUNT
    task_service_accounts: tuple[str, ...] = ()
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    driver_cpu: str = "100m"
    driver_memory: str = "512Mi"
    driver_restarts: int = 5
    ttl_seconds: int = 3600

    def refusal(self, spec: Mapping[str, Any]) -> str | None:
        """Why a FlowRun's spec is not allowed, with what to do about it; None where it is."""
        image = (spec.get("driver") or {}).get("image")
        if image is not None and image not in {self.image, *self.driver_images}:
            return (
                f"the driver's image {image!r} is not allowed here.\n"
                "Leave spec.driver.image out, or have it added to the chart's value driver.allowedImages."
            )
        return None
