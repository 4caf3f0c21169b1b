"""The log of a container, each line exactly once, even if the connection breaks.

The API resumes "since" a time in whole seconds, so lines of that second come again. Lines are requested with their
timestamps, which never decrease, and lines with the same timestamp are counted; so repeated ones are recognized.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus

from k8sflow.debug_log import DebugLog
from k8sflow.errors import ApiStatusError, ApiUnreachableError
from k8sflow.kubernetes.api import KubernetesApi, backoff
from k8sflow.outages import Outage, Report

_AFTER_END_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 10.0
_LATE_SECONDS = 8.0
# Written by the kubelet in place of a log that it can't read; not output of the task.
_KUBELET_TROUBLE = (b"unable to retrieve container logs for", b"failed to create fsnotify watcher", b"rpc error:")

_log = DebugLog(__name__)


class PodLog:
    """Reads the log of one container.

    Args:
        api: The client.
        path: The pod: ``/api/v1/namespaces/NAMESPACE/pods/NAME``.
        container: Name of the container.
        on_line: Called with each line, without its newline.
        report: Called when the log has been unreadable for some seconds, and when it can be read again.
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        *,
        container: str,
        on_line: Callable[[bytes], None],
        report: Report | None = None,
    ) -> None:
        self._api = api
        self.pod_path = path
        self._outage = Outage("Its output", report, recovery="is shown again")
        self._path = f"{path}/log"
        self._container = container
        self._on_line = on_line
        self._last_time = b""
        self._seen_at_last_time = 0

    async def follow(self) -> None:
        """Passes on lines as they are written, until it is cancelled.

        Neither the end of the stream nor an error means that the container has ended: logs are rotated, kubelets
        restart. The pod's status says so; then the caller cancels this and calls ``drain``.

        Raises:
            ApiStatusError: Reading the log is forbidden.
        """
        delays = backoff(_AFTER_END_SECONDS, _LONGEST_DELAY_SECONDS)
        while True:
            position = self._position
            try:
                await self._read(follow=True)
            except (ApiStatusError, ApiUnreachableError) as error:
                _log.debug("%s: %s", self._path, error.summary)
                if getattr(error, "status", None) == HTTPStatus.FORBIDDEN:
                    raise
                if isinstance(error, ApiStatusError):  # the client reports a server that can't be reached
                    self._failed(error)
            if self._position != position:
                delays = backoff(_AFTER_END_SECONDS, _LONGEST_DELAY_SECONDS)
            delay = next(delays)
            _log.debug("%s: the stream ended; reading on in %.1f s", self._path, delay)
            await asyncio.sleep(delay)

    def _failed(self, error: ApiStatusError) -> None:
        status = f"{error.status} {error.reason}".strip()
        text = f"its output can't be shown now, because its node doesn't answer ({status}); it is shown later."
        if self._outage.failed(text):
            asyncio.get_running_loop().call_later(self._outage.seconds_to_report, self._outage.report_if_due)

    async def drain(self, last_lines: int | None = None) -> None:
        """Passes on the rest of the log of a container that has ended.

        Args:
            last_lines: How many lines are enough; None for all.

        Raises:
            ApiStatusError: The log was deleted, or reading it is forbidden.
            ApiUnreachableError: It can't be read now.
        """
        await self._read(follow=False, last_lines=last_lines)

    @property
    def _position(self) -> tuple[bytes, int]:
        return self._last_time, self._seen_at_last_time

    async def _read(self, *, follow: bool, last_lines: int | None = None) -> None:
        params = {"container": self._container, "timestamps": "true"}
        if follow:
            params["follow"] = "true"
        if last_lines is not None:
            params["tailLines"] = str(last_lines)
        if self._last_time:
            params["sinceTime"] = _whole_seconds(self._last_time)
        start, repeated = self._last_time, self._seen_at_last_time
        async with self._opened(params) as lines:
            async for line in lines:
                time, separator, content = line.partition(b" ")
                if not (separator and _is_time(time)):
                    if not line.startswith(_KUBELET_TROUBLE):
                        self._on_line(line)
                    continue
                if time < start:
                    continue
                if time == start and repeated:
                    repeated -= 1
                    continue
                self._seen_at_last_time = self._seen_at_last_time + 1 if time == self._last_time else 1
                self._last_time = time
                self._on_line(content)

    @contextlib.asynccontextmanager
    async def _opened(self, params: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines; that the server waits for the node in vain, as after its loss, is reported meanwhile."""
        text = "its output can't be shown now, because its node doesn't answer; it is shown later."
        late = asyncio.get_running_loop().call_later(_LATE_SECONDS, self._outage.failed, text, _LATE_SECONDS)
        try:
            async with self._api.stream(self._path, params, read_timeout_seconds=None) as lines:
                late.cancel()
                self._outage.answered()
                yield lines
        finally:
            late.cancel()


def _is_time(text: bytes) -> bool:
    """True for what looks like an RFC 3339 time, with nanoseconds, which the kubelet writes before each line."""
    return text[:4].isdigit() and text[10:11] == b"T"


def _whole_seconds(time: bytes) -> str:
    """The time without its fraction, but with its zone."""
    text = time.decode("ascii")
    head, _, tail = text.partition(".")
    return head + tail.lstrip("0123456789")
