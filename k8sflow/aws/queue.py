"""A job queue with its compute environments: what is wrong with it, and what doesn't fit into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from k8sflow.aws.document import Document
from k8sflow.aws.fargate import fargate_mistake, growth_mistake
from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.task.result import Failure

_OF_FARGATE = ("ephemeral_storage",)


@dataclass(frozen=True)
class Queue:
    """A job queue.

    Args:
        name: Its name.
        document: Its description.
        environments: Those of its compute environments, in their order.
    """

    name: str
    document: Document
    environments: tuple[Document, ...] = ()

    @property
    def is_fargate(self) -> bool:
        """True if its jobs run on Fargate: a queue has environments of one kind."""
        return any("FARGATE" in kind for kind in self._kinds)

    @property
    def is_spot(self) -> bool:
        """True if an instance may be reclaimed."""
        return any("SPOT" in kind for kind in self._kinds)

    @property
    def _kinds(self) -> list[str]:
        return [str(_resources(each).get("type") or "") for each in self.environments]

    @property
    def most_vcpus(self) -> int | None:
        """The most vCPUs that one of its environments has; None where that is not limited here."""
        found = [int(_resources(each).get("maxvCpus") or 0) for each in self.environments]
        return max(found) if found and all(found) else None

    def mistake(self) -> Failure | None:
        """Why it can't run any job, or None."""
        if self.document.get("state") != "ENABLED":
            return Failure(f"the job queue {self.name} is disabled.", "", "Enable it, or name another one.")
        if self.document.get("status", "VALID") not in {"VALID", "CREATING", "UPDATING"}:
            why = str(self.document.get("statusReason") or "")
            return Failure(f"the job queue {self.name} is {self.document['status']}.", why, "Repair it in AWS Batch.")
        usable = [each for each in self.environments if _is_usable(each)]
        if not usable:
            named = "; ".join(map(_described, self.environments)) or "it has none"
            advice = "Enable or repair one of them, or name another queue."
            return Failure(f"no compute environment of the job queue {self.name} can be used.", named, advice)
        return None

    def misfit(self, options: BatchOptions) -> Failure | None:
        """Why a job with these options can't run here, or None."""
        assert options.cpu is not None, "every job requests vCPUs"
        most, cores = self.most_vcpus, quantity.parse(options.cpu)
        if most is not None and cores > Decimal(most):
            return Failure(
                f"it requests {cores.normalize():f} vCPUs, and the compute environments of the job queue {self.name} "
                f"have {most} at most.",
                "",
                "Request fewer with @resources(cpu=…), or raise maxvCpus of the compute environment.",
            )
        if self.is_fargate:
            return fargate_mistake(options)
        for name in _OF_FARGATE:
            if getattr(options, name) is not None:
                why = f"the job queue {self.name} has EC2 instances, and {name} is an option of Fargate."
                return Failure(why, "", f"Remove {name}, or name a queue with a Fargate environment.")
        return None

    def misfit_of_growth(self, options: BatchOptions) -> Failure | None:
        """Why a job can't run here with the memory that ``on_oom`` requests, or None."""
        return growth_mistake(options) if self.is_fargate else None

    def misfit_of_nodes(self, options: BatchOptions) -> Failure | None:
        """Why tasks with these options can't run together here, or None.

        https://docs.aws.amazon.com/batch/latest/userguide/mnp-ce.html
        """
        if self.is_fargate:
            return Failure(
                "its tasks run together, and Fargate has no multi-node jobs.",
                f"The job queue {self.name} has a Fargate environment.",
                "Name a queue with EC2 instances: @batch(queue=…).",
            )
        if self.is_spot:
            return Failure(
                "its tasks run together, and AWS Batch has no multi-node jobs on spot instances.",
                f"The job queue {self.name} has a spot environment.",
                "Name a queue with on-demand instances: @batch(queue=…).",
            )
        if options.job_definition is not None:
            return Failure(
                "its tasks run together, and an existing job definition doesn't say on how many nodes.",
                "",
                "Remove job_definition: k8sflow registers one for the number of nodes.",
            )
        return None


def _resources(environment: Document) -> dict[str, Any]:
    return environment.get("computeResources") or {}


def _is_usable(environment: Document) -> bool:
    return environment.get("state") == "ENABLED" and environment.get("status") in {None, "VALID", "UPDATING"}


def _described(environment: Document) -> str:
    name, state, status = (environment.get(key) for key in ("computeEnvironmentName", "state", "status"))
    reason = f" ({environment['statusReason']})" if environment.get("statusReason") else ""
    return f"{name} is {state}, {status}{reason}"


def environments_of(document: Document) -> Sequence[str]:
    """The ARNs of a queue's compute environments, in their order."""
    found = sorted(document.get("computeEnvironmentOrder") or (), key=lambda each: each["order"])
    return [str(each["computeEnvironment"]) for each in found]
