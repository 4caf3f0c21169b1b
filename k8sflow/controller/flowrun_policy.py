"""The requests that the platform team allows in FlowRuns.

A FlowRun makes the controller start a pod, so anyone who may create FlowRuns borrows the controller's permissions. What
may be chosen about the pod is an allow-list, here and in the CRD's schema; the controller sets everything else. The
options of tasks are in the run's record, which the controller doesn't read. The driver does, and accepts only the
service accounts that it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k8sflow.kubernetes.flowrun import DRIVER_SERVICE_ACCOUNT, TASK_SERVICE_ACCOUNT


@dataclass(frozen=True)
class Policy:
    """The settings of driver pods, and the choices that a FlowRun has.

    Args:
        image: The k8sflow image, for drivers whose FlowRun names none.
        driver_images: Other images that a FlowRun may choose for its driver.
        driver_service_account: Service account of drivers.
        task_service_account: Service account of task pods whose flow names none.
        task_service_accounts: Other service accounts that a flow may choose for its tasks.
        task_options: Guarded options of @kubernetes that a flow may use for its tasks.
        image_pull_policy: Pull policy of the driver's image.
        image_pull_secrets: Secrets for pulling the driver's image.
        driver_cpu: Cores that a driver requests, unless its FlowRun says otherwise.
        driver_memory: Memory that a driver requests, which is also its limit.
        driver_restarts: How often a dead driver is restarted; evictions don't count.
        ttl_seconds: How long the Job of a finished driver is kept, with its log.
    """

    image: str
    driver_images: tuple[str, ...] = ()
    driver_service_account: str = DRIVER_SERVICE_ACCOUNT
    task_service_account: str = TASK_SERVICE_ACCOUNT
    task_service_accounts: tuple[str, ...] = ()
    task_options: tuple[str, ...] = ()
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    driver_cpu: str = "100m"
    driver_memory: str = "512Mi"
    driver_restarts: int = 5
    ttl_seconds: int = 3600

    def refusal(self, spec: Mapping[str, Any]) -> str | None:
        """Why a FlowRun's spec is not allowed, and what to do; None if it is allowed."""
        image = (spec.get("driver") or {}).get("image")
        if image is not None and image not in {self.image, *self.driver_images}:
            return (
                f"the driver's image {image!r} is not allowed here.\n"
                "Remove spec.driver.image, or have the image added to the chart's value driver.allowedImages."
            )
        return None
