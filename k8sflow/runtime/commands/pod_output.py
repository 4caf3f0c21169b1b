"""``kubernetes logs``: the output of a task, straight from its pod, or why there is none yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

from k8sflow.errors import ApiStatusError, KubernetesError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.live import LiveTask
from k8sflow.kubernetes.logs import PodLog
from k8sflow.kubernetes.outcome import PodEnd, Waiting, pod_state
from k8sflow.kubernetes.pod import CONTAINER
from k8sflow.task.host.framing import Piece, StartLine, decode

Show = Callable[[Literal["stdout", "stderr"], bytes], None]
_LOOK_SECONDS = 1.0


async def show_output(api: KubernetesApi, namespace: str, task: LiveTask, show: Show, *, follow: bool) -> bool:
    """Shows the output of a task's pod; False if the pod or its log is missing.

    Args:
        api: The API server.
        namespace: The namespace.
        task: The task; it has a pod.
        show: Called with each piece.
        follow: Whether to go on until the pod has ended.

    Raises:
        KubernetesError: Logs may not be read.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{task.pod_name}"

    def on_line(line: bytes) -> None:
        match decode(line):
            case Piece(stream=stream, data=data):
                show(stream, data)

    log = PodLog(api, path, container=CONTAINER, on_line=on_line)
    try:
        if follow:
            await _follow(api, path, task, log)
        await log.drain()
    except ApiStatusError as error:
        if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:  # deleted, or it hasn't started
            return False
        raise
    return True


async def why_silent(api: KubernetesApi, namespace: str, task: LiveTask, name: str) -> str:
    """Why the bucket has nothing of a task yet, as the rest of a sentence about it; empty if that is not known.

    Args:
        api: The API server.
        namespace: The namespace.
        task: The pod with its tasks.
        name: The id of the task that is meant.

    Raises:
        KubernetesError: Logs may not be read.
    """
    if task.pod is None:
        return f"has not started: its Job {task.job_name} has no pod yet."
    if isinstance(pod_state(task.pod, task.options), Waiting):
        why = "" if task.why_waiting is None else f" {task.why_waiting.explained.summary}"
        return f"has not started: its pod {task.pod_name} is {task.phase}.{why}"
    if len(task.tasks) == 1:
        return ""
    if await _has_started(api, namespace, task, name):
        return f"has started in pod {task.pod_name}, and has written nothing yet."
    return f"waits for its turn in pod {task.pod_name}, which it shares with other branches: {task.step}/{task.task}."


async def _has_started(api: KubernetesApi, namespace: str, task: LiveTask, name: str) -> bool:
    """True if the log of a shared pod says that a task has started."""
    started: set[str] = set()

    def on_line(line: bytes) -> None:
        if isinstance(found := decode(line), StartLine):
            started.add(found.task)

    path = f"/api/v1/namespaces/{namespace}/pods/{task.pod_name}"
    try:
        await PodLog(api, path, container=CONTAINER, on_line=on_line).drain()
    except ApiStatusError as error:
        if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
            raise
    return name in started


async def _follow(api: KubernetesApi, path: str, task: LiveTask, log: PodLog) -> None:
    """Shows lines as they are written, until the pod has ended or is deleted."""
    follower = asyncio.ensure_future(log.follow())
    try:
        while not follower.done():
            await asyncio.wait({follower}, timeout=_LOOK_SECONDS)
            pod = await api.get(path)
            if isinstance(pod_state(pod, task.options), PodEnd):
                return
    finally:
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError, KubernetesError):  # drain says what is wrong
            await follower
