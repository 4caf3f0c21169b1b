"""The controller's decisions about a FlowRun: a pure function from the observed state to the actions.

Two programs write to a FlowRun's status:

- the driver, while it is alive: phase Running or the final phase, the counters, the message;
- the controller, while no driver is alive: phase Pending, why the driver doesn't start, and the end of a run whose
  driver is dead for good and didn't report it.

A final phase is never overwritten. Nothing is deleted here: a FlowRun owns all objects of its run, and Kubernetes
deletes them with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k8sflow.controller import driver_pod
from k8sflow.controller.driver_job import driver_job
from k8sflow.controller.flowrun_policy import Policy
from k8sflow.kubernetes.flowrun import Phase, message_of, phase_of, timestamp
from k8sflow.kubernetes.manifest import Manifest, condition


@dataclass(frozen=True)
class Observed:
    """The observed state of a FlowRun.

    Args:
        flowrun: The FlowRun.
        job: The Job with the name of the driver's, or None.
        pods: The driver's pods.
        now: The time, in seconds since 1970.
    """

    flowrun: Manifest
    job: Manifest | None = None
    pods: Sequence[Manifest] = ()
    now: float = 0.0


@dataclass(frozen=True)
class Decision:
    """The actions to take.

    Args:
        create: The Job to create, or None.
        status: Changes to merge into the FlowRun's status; empty if it is up to date.
    """

    create: Manifest | None = None
    status: Manifest = field(default_factory=dict)


def reconcile(observed: Observed, policy: Policy) -> Decision:
    """Decides how to advance a FlowRun; the decision is empty if nothing needs to be done."""
    flowrun = observed.flowrun
    phase = phase_of(flowrun)
    if flowrun["metadata"].get("deletionTimestamp") or (phase is not None and phase.is_final):
        return Decision()
    if (refusal := policy.refusal(flowrun["spec"])) is not None:
        return Decision(status=_changes(observed, Phase.FAILED, refusal))
    if observed.job is None:
        return Decision(create=driver_job(flowrun, policy))
    if not is_ours(observed.job, flowrun):
        name = observed.job["metadata"]["name"]
        return Decision(status=_changes(observed, phase or Phase.PENDING, _name_is_taken(name)))
    return Decision(status=_changes(observed, *_progress(observed, phase or Phase.PENDING)))


def is_ours(job: Manifest, flowrun: Manifest) -> bool:
    """True if the FlowRun controls the Job: by uid, since any object may have the name and the labels."""
    owners = job["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner["uid"] == flowrun["metadata"]["uid"] for owner in owners)


def _progress(observed: Observed, phase: Phase) -> tuple[Phase, str | None]:
    """Phase and message that follow from the Job and its pods; no message while the driver writes its own."""
    assert observed.job is not None
    if (failed := condition(observed.job, "Failed")) is not None:
        return Phase.FAILED, _why_failed(observed, failed)
    if condition(observed.job, "Complete") is not None:
        return Phase.SUCCEEDED, "the driver succeeded, but could not report the counts."
    pod = driver_pod.newest(observed.pods)
    if pod is not None and driver_pod.is_running(pod):
        return phase, None
    if pod is not None and (waiting := driver_pod.waits_for(pod)) is not None:
        return phase, waiting
    if pod is not None and (end := driver_pod.end_of(pod)) is not None:
        return phase, f"another driver takes over: {end}"
    return phase, _restarting(observed) if phase is Phase.RUNNING else ""


def _restarting(observed: Observed) -> str | None:
    """The message about a driver that is being replaced; None if it is only ending."""
    assert observed.job is not None
    failed = (observed.job.get("status") or {}).get("failed") or 0
    return "the driver is being restarted." if failed else None


def _why_failed(observed: Observed, failed: Manifest) -> str:
    ended = [end for pod in _youngest_first(observed.pods) if (end := driver_pod.end_of(pod)) is not None]
    reason = str(failed.get("message") or failed.get("reason") or "")
    if failed.get("reason") == "BackoffLimitExceeded":
        return f"the driver died repeatedly; the last time: {ended[0]}\n{reason}" if ended else reason
    return ended[0] if ended else f"the driver's Job failed: {reason}"


def _youngest_first(pods: Sequence[Manifest]) -> list[Manifest]:
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def _changes(observed: Observed, phase: Phase, message: str | None) -> Manifest:
    """The changes to the current status."""
    before = observed.flowrun.get("status") or {}
    wanted: Manifest = {
        "phase": phase.value,
        "observedGeneration": observed.flowrun["metadata"].get("generation", 1),
    }
    if message is not None:
        wanted["message"] = message_of(message)
    if observed.job is not None:
        restarts = (observed.job.get("status") or {}).get("failed") or 0
        wanted["driver"] = {"job": observed.job["metadata"]["name"], "restarts": restarts}
    if phase.is_final:
        wanted["finishedAt"] = timestamp(observed.now)
    return {key: value for key, value in wanted.items() if before.get(key) != value}


def _name_is_taken(name: str) -> str:
    return (
        f"the Job {name!r} exists already, and does not belong to this FlowRun.\n"
        f"If it is being deleted, the run starts once it is deleted; else delete it: kubectl delete job {name}"
    )
