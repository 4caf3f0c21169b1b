"""What a driver's pods say: what the newest one waits for, and why the last one ended."""

from __future__ import annotations

from collections.abc import Sequence

from k8sflow.kubernetes.manifest import Manifest

_ORDINARY_REASONS = {"", "ContainerCreating", "PodInitializing"}
_OUT_OF_MEMORY_EXIT = 137
_LONGEST_EVIDENCE = 600


def newest(pods: Sequence[Manifest]) -> Manifest | None:
    """The pod that was made last."""
    return max(pods, key=lambda pod: (str(pod["metadata"]["creationTimestamp"]), _is_live(pod)), default=None)


def is_running(pod: Manifest) -> bool:
    """Whether the driver's process runs."""
    return "running" in _state(pod)


def waits_for(pod: Manifest) -> str | None:
    """What holds the pod up, with what to do about it; None where it is only on its way, or past it."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("reason") == "Unschedulable" and condition.get("status") == "False":
            return f"no node has room for the driver's pod.\n{condition.get('message') or ''}"
    waiting = _state(pod).get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in _ORDINARY_REASONS:
        return None
    return f"the driver's pod waits: {reason}: {message}".rstrip(": ")


def end_of(pod: Manifest) -> str | None:
    """Why the pod ended, with the evidence; None where it has not, or has succeeded."""
    status = pod.get("status") or {}
    terminated = _state(pod).get("terminated")
    if terminated is None:
        if status.get("phase") != "Failed":
            return None
        return f"the driver's pod failed: {status.get('reason') or 'no reason told'}.\n{status.get('message') or ''}"
    code, reason = int(terminated.get("exitCode", -1)), str(terminated.get("reason") or "")
    if code == 0:
        return None
    if reason == "OOMKilled" and code == _OUT_OF_MEMORY_EXIT:
        return (
            "the driver's pod used more memory than its limit.\n"
            "Raise spec.driver.resources.memory of the FlowRun, or the chart's value driver.resources.memory."
        )
    told = _last_words(str(terminated.get("message") or ""))
    if told.startswith("Error: "):
        return told.removeprefix("Error: ")
    return f"the driver ended with exit code {code}{f': {told}' if told else '.'}"


def _last_words(log: str) -> str:
    """What the end of a driver's log says about its end: an error of ours in its parts, else the last line."""
    _, found, told = f"\n{log}".rpartition("\nError: ")
    if found:
        return f"Error: {told.strip()}"[:_LONGEST_EVIDENCE]
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:_LONGEST_EVIDENCE] if lines else ""


def _state(pod: Manifest) -> Manifest:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    state: Manifest = statuses[0].get("state") or {}
    return state


def _is_live(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") not in {"Failed", "Succeeded"}
