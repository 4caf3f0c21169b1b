"""Completes the stored log of a pod whose agent was killed, as by the kernel for want of memory."""

from __future__ import annotations

import asyncio
from typing import get_args

from k8sflow.debug_log import DebugLog
from k8sflow.errors import K8sflowError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.logs import PodLog
from k8sflow.kubernetes.pod import CONTAINER
from k8sflow.storage.run_store import RunStore
from k8sflow.task.host.framing import OutputStream, Piece, decode
from k8sflow.task.spec import TaskSpec

_SECONDS = 10.0
# A kubelet keeps 10 MiB of a container's log, unless it is configured otherwise.
_MOST_BYTES = 16 << 20

_log = DebugLog(__name__)


async def complete_logs(api: KubernetesApi, pod_path: str, run_store: RunStore, spec: TaskSpec) -> None:
    """Adds the output that the agent of a task had not stored yet, if the pod's log can still be read.

    Args:
        api: The client.
        pod_path: The pod, whose container has ended: ``/api/v1/namespaces/NAMESPACE/pods/NAME``.
        run_store: The run's records.
        spec: The pod's task, or one of several.
    """
    output: dict[OutputStream, bytearray] = {stream: bytearray() for stream in get_args(OutputStream)}

    def take(line: bytes) -> None:
        found = decode(line)
        if isinstance(found, Piece) and found.task in {"", spec.name.id}:
            data = output[found.stream]
            data += found.data
            if len(data) > 2 * _MOST_BYTES:
                del data[:_MOST_BYTES]

    name = spec.name
    try:
        await asyncio.wait_for(PodLog(api, pod_path, container=CONTAINER, on_line=take).drain(), _SECONDS)
        for stream, data in output.items():
            if data:
                await asyncio.to_thread(run_store.complete_log, name.step, name.id, spec.attempt, stream, bytes(data))
    except (K8sflowError, asyncio.TimeoutError) as error:
        # The pod or its node is lost: what the agent had stored is all there is.
        _log.debug("The log of %s, attempt %d, can't be completed: %r", name, spec.attempt, error)
