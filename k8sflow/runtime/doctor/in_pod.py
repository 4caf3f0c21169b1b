"""The bucket from inside: a small Job with the images of the settings tries it, and is deleted."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from k8sflow.config import Settings
from k8sflow.errors import KubernetesError
from k8sflow.flow.decorators.pod_options import RUNTIME_FOLDER
from k8sflow.kubernetes import labels, waiting
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.job import TaskJob, job_manifest
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.pod import CONTAINER
from k8sflow.runtime.doctor.cluster import doctors_job
from k8sflow.storage.probe import Trial
from k8sflow.task.host.launch import DEFAULT_PYTHON

_LOOK_SECONDS = 0.5
_TTL_SECONDS = 60  # where this process is killed before it deletes the Job
_CODE = f"import sys; sys.path.insert(0, {RUNTIME_FOLDER!r}); from k8sflow.storage.probe import main; sys.exit(main())"


async def trials_in_pod(api: KubernetesApi, settings: Settings, timeout_seconds: float) -> list[Trial]:
    """Runs the trials of a bucket in a pod.

    Args:
        api: The API server.
        settings: The settings, with the namespace.
        timeout_seconds: How long the pod may take to start and to end.

    Raises:
        KubernetesError: It doesn't start or end, or ends without a result.
    """
    options = doctors_job(settings, deadline_seconds=int(timeout_seconds) + _TTL_SECONDS)
    job = replace(options, command=(DEFAULT_PYTHON, "-c", _CODE), ttl_seconds=_TTL_SECONDS)
    path = f"/apis/batch/v1/namespaces/{job.namespace}/jobs"
    try:
        await api.create(path, job_manifest(job))
        return await _result(api, job, timeout_seconds)
    finally:  # also after Ctrl-C
        await api.delete(f"{path}/{job.name}")


async def _result(api: KubernetesApi, job: TaskJob, timeout_seconds: float) -> list[Trial]:
    clock = asyncio.get_running_loop().time
    end = clock() + timeout_seconds
    pods = f"/api/v1/namespaces/{job.namespace}/pods"
    pod: Manifest | None = None
    while clock() < end:
        await asyncio.sleep(_LOOK_SECONDS)
        found, _ = await api.list(pods, label_selector=f"{labels.JOB_NAME}={job.name}")
        pod = found[-1] if found else None
        if pod is not None and (ended := _ended(pod)) is not None:
            return _parsed(ended)
        reason = waiting.why(pod, job.options) if pod is not None else None
        if reason is not None and reason.explained.is_final:
            break
    raise await _why_not(api, job, pod, timeout_seconds)


def _ended(pod: Manifest) -> Manifest | None:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status["name"] == CONTAINER and (ended := (status.get("state") or {}).get("terminated")):
            return dict(ended)
    if (pod.get("status") or {}).get("phase") == "Failed":
        return {"reason": "Failed", "message": str(pod["status"].get("message") or "its init container failed")}
    return None


def _parsed(ended: Manifest) -> list[Trial]:
    message = str(ended.get("message") or "")
    try:
        return [Trial(**trial) for trial in json.loads(message)]
    except (ValueError, TypeError):
        raise KubernetesError(
            f"the doctor's pod ended without a result (exit code {ended.get('exitCode')}, {ended.get('reason')}).",
            cause=message[-1000:],
            advice="kubernetes_runtime_image must be a k8sflow image of this version, and kubernetes_image must have "
            "Python 3.10 or newer as python3.",
        ) from None


async def _why_not(api: KubernetesApi, job: TaskJob, pod: Manifest | None, seconds: float) -> KubernetesError:
    """The reason why the pod has no result: what its status or its events say."""
    found = waiting.why(pod, job.options) if pod is not None else None
    if found is None:
        events = f"/api/v1/namespaces/{job.namespace}/events"
        selector = f"involvedObject.name={job.name}" if pod is None else f"involvedObject.uid={pod['metadata']['uid']}"
        try:
            listed, _ = await api.list(events, field_selector=selector)
        except KubernetesError:
            listed = []  # a courtesy
        found = waiting.without_pod(listed).get(job.name) if pod is None else waiting.from_events(listed)
    if found is None:
        advice = "`k8sflow doctor --timeout SECONDS` waits longer; a slow image pull may need it."
        return KubernetesError(f"the doctor's pod had no result after {seconds:.0f} s.", advice=advice)
    why = found.explained
    return KubernetesError(f"the doctor's pod can't start: {why.summary}", cause=why.detail, advice=why.resolution)
