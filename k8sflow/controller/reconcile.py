"""What the controller does about a FlowRun: a function from what is there to what has to be done.

Who writes what into a FlowRun's status:

- the driver, while it lives: phase Running and how it ended, the counters, the message;
- the controller, while no driver lives: phase Pending, why the driver doesn't start, and the end of a run whose driver
  is gone for good without having told it.

A final phase is never written over. Nothing is deleted here: everything of a run is owned by its FlowRun, and goes
with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k8sflow.controller import driver_pod
from k8sflow.controller.driver_job import driver_job
from k8sflow.controller.policy import Policy
from k8sflow.kubernetes.flowrun import Phase, message_of, phase_of, timestamp
from k8sflow.kubernetes.manifest import Manifest, condition


@dataclass(frozen=True)
class Observed:
    """What is there.

    Args:
        flowrun: The FlowRun.
        job: The Job of the driver's name, or None.
        pods: The driver's pods.
        now: The time, in seconds since 1970.
    """

    flowrun: Manifest
    job: Manifest | None = None
    pods: Sequence[Manifest] = ()
    now: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What has to be done.

    Args:
        create: The Job to create, or None.
        status: What to merge into the FlowRun's status; empty where it is right.
    """

    create: Manifest | None = None
    status: Manifest = field(default_factory=dict)


def reconcile(observed: Observed, policy: Policy) -> Decision:
    """What brings a FlowRun forward; nothing where it is well."""
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
        return Decision(status=_changes(observed, phase or Phase.PENDING, _taken(name)))
    return Decision(status=_changes(observed, *_told(observed, phase or Phase.PENDING)))


def is_ours(job: Manifest, flowrun: Manifest) -> bool:
    """Whether the FlowRun controls the Job: by uid, since names and labels can be anybody's."""
    owners = job["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner["uid"] == flowrun["metadata"]["uid"] for owner in owners)


def _told(observed: Observed, phase: Phase) -> tuple[Phase, str | None]:
    """Phase and message that Job and pods stand for; no message where the driver has the word."""
    assert observed.job is not None
    if (failed := condition(observed.job, "Failed")) is not None:
        return Phase.FAILED, _why_failed(observed, failed)
    if condition(observed.job, "Complete") is not None:
        return Phase.SUCCEEDED, "the driver ended well, but could not tell the counts."
    pod = driver_pod.newest(observed.pods)
    if pod is not None and driver_pod.is_running(pod):
        return phase, None
    if pod is not None and (waiting := driver_pod.waits_for(pod)) is not None:
        return phase, waiting
    if pod is not None and (end := driver_pod.end_of(pod)) is not None:
        return phase, f"another driver takes over: {end}"
    return phase, _restarting(observed) if phase is Phase.RUNNING else ""


def _restarting(observed: Observed) -> str | None:
    """That a driver which has told of itself is being replaced; None where it only ends."""
    assert observed.job is not None
    failed = (observed.job.get("status") or {}).get("failed") or 0
    return "the driver is being started again." if failed else None


def _why_failed(observed: Observed, failed: Manifest) -> str:
    ended = [end for pod in _youngest_first(observed.pods) if (end := driver_pod.end_of(pod)) is not None]
    reason = str(failed.get("message") or failed.get("reason") or "")
    if failed.get("reason") == "BackoffLimitExceeded":
        return f"the driver died again and again; last: {ended[0]}\n{reason}" if ended else reason
    return ended[0] if ended else f"the driver's Job failed: {reason}"


def _youngest_first(pods: Sequence[Manifest]) -> list[Manifest]:
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def _changes(observed: Observed, phase: Phase, message: str | None) -> Manifest:
    """What differs from the status that is there."""
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


def _taken(name: str) -> str:
    return (
        f"the Job {name!r} is there already, and is not of this FlowRun.\n"
        f"If it is being deleted, this goes on by itself; else delete it: kubectl delete job {name}"
    )
