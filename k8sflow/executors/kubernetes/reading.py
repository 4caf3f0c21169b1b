"""The log of one pod's container: followed while it runs, and read to its end afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from k8sflow.errors import KubernetesError
from k8sflow.executors.kubernetes.pod_context import PodContext
from k8sflow.kubernetes.logs import PodLog
from k8sflow.kubernetes.pod import CONTAINER

_DRAIN_SECONDS = 2.0


class LogReading:
    """Reads the log of a pod.

    Args:
        run: The run.
        pod: The pod's name.
        last_lines: How many lines are enough where the rest is read; None for all.
        on_line: Takes each line.
        say: Takes what a person should know about the reading.
    """

    def __init__(
        self,
        run: PodContext,
        pod: str,
        last_lines: int | None,
        on_line: Callable[[bytes], None],
        say: Callable[[str], None],
    ) -> None:
        self._run = run
        self._say = say
        self._last_lines = last_lines
        path = f"/api/v1/namespaces/{run.namespace}/pods/{pod}"
        self._log = PodLog(run.api, path, container=CONTAINER, on_line=on_line, report=lambda notice: say(notice.text))
        self._follower: asyncio.Task[None] | None = None

    @property
    def pod_path(self) -> str:
        """The pod's path in the API server."""
        return self._log.pod_path

    def follow(self) -> None:
        """Starts to pass lines on as they are written."""
        self._follower = self._run.spawn(self._follow())

    def stop(self) -> None:
        """Ends the following."""
        if self._follower is not None:
            self._follower.cancel()

    async def finish(self, *, reads_rest: bool) -> None:
        """Waits for the end of the following; passes on the rest of the log."""
        if self._follower is not None:
            await asyncio.wait({self._follower})
        if reads_rest:
            try:
                await asyncio.wait_for(self._log.drain(self._last_lines), _DRAIN_SECONDS)
            except (KubernetesError, asyncio.TimeoutError):
                # The pod or its node is lost, and the rest of its log with it; the agent has uploaded what it could.
                return

    async def _follow(self) -> None:
        try:
            await self._log.follow()
        except KubernetesError as error:
            self._say(f"its output can't be shown here: {error.summary} {error.cause}")
