"""The state of a driver's pods: why the newest one waits, and why the last one ended."""

from __future__ import annotations

from collections.abc import Sequence

from k8sflow import debug_log
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.outcome import is_out_of_memory
from k8sflow.kubernetes.waiting import ORDINARY_REASONS

_LONGEST_EVIDENCE = 600


def newest(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod that was created last."""
    return max(pods, key=lambda pod: (str(pod["metadata"]["creationTimestamp"]), _is_live(pod)), default=None)


def is_running(pod: Manifest) -> bool:
    """True if the driver's process is running."""
    return "running" in _state(pod)


def waits_for(pod: Manifest) -> str | None:
    """The reason why the pod waits; None if it is starting normally, or has started."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("reason") == "Unschedulable" and condition.get("status") == "False":
            return f"no node can take the driver's pod.\n{condition.get('message') or ''}"
    waiting = _state(pod).get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in ORDINARY_REASONS:
        return None
    return f"the driver's pod waits: {reason}: {message}".rstrip(": ")


def end_of(pod: Manifest) -> str | None:
    """Why the pod failed, with the evidence; None if it hasn't ended, or has succeeded."""
    status = pod.get("status") or {}
    terminated = _state(pod).get("terminated")
    if terminated is None:
        if status.get("phase") != "Failed":
            return None
        return f"the driver's pod failed: {status.get('reason') or 'no reason given'}.\n{status.get('message') or ''}"
    code = int(terminated.get("exitCode", -1))
    if code == 0:
        return None
    if is_out_of_memory(terminated):
        return (
            "the driver's pod used more memory than its limit.\n"
            "Raise spec.driver.resources.memory of the FlowRun, or the chart's value driver.resources.memory."
        )
    evidence = _last_output(str(terminated.get("message") or ""))
    if evidence.startswith("Error: "):
        return evidence.removeprefix("Error: ")
    return f"the driver ended with exit code {code}{f': {evidence}' if evidence else '.'}"


def _last_output(log: str) -> str:
    """The error at the end of a driver's log, with its parts; else the last line. Debug logging is skipped."""
    lines = [line for line in log.splitlines() if line.strip() and not debug_log.is_record(line)]
    _, separator, error = "\n".join(["", *lines]).rpartition("\nError: ")
    if separator:
        return f"Error: {error.strip()}"[:_LONGEST_EVIDENCE]
    return lines[-1].strip()[:_LONGEST_EVIDENCE] if lines else ""


def _state(pod: Manifest) -> Manifest:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    state: Manifest = statuses[0].get("state") or {}
    return state


def _is_live(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") not in {"Failed", "Succeeded"}
