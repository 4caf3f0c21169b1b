"""The log of a container, line by line, each once, also when the connection breaks in between.

The API goes on "since" a time of whole seconds. Lines are asked for with their timestamps, so that those of that
second which were seen already are told from those that were not: the timestamps of a log never go back, and several
lines of one timestamp are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from k8sflow.debug_log import DebugLog
from k8sflow.errors import ApiStatusError, ApiUnreachableError
from k8sflow.kubernetes.api import KubernetesApi, backoff

_AFTER_END_SECONDS = 0.2
_AFTER_ERROR_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 10.0
_TRIES_WITHOUT_A_LINE = 8
# What the kubelet writes into a log that it can't read (any more); nothing of it is the task's.
_KUBELET_TROUBLE = (b"unable to retrieve container logs for", b"failed to create fsnotify watcher", b"rpc error:")

_log = DebugLog(__name__)


class PodLog:
    """Reads the log of one container.

    Args:
        api: The client.
        path: The pod: ``/api/v1/namespaces/NAMESPACE/pods/NAME``.
        container: Which of its containers.
        on_line: Called with each line, without its newline.
    """

    def __init__(self, api: KubernetesApi, path: str, *, container: str, on_line: Callable[[bytes], None]) -> None:
        self._api = api
        self._path = f"{path}/log"
        self._container = container
        self._on_line = on_line
        self._last_time = b""
        self._seen_at_last_time = 0

    async def follow(self) -> None:
        """Hands on lines as they are written, until it is cancelled or the log can't be read.

        The end of the stream doesn't tell that the container has ended (logs are rotated, kubelets restart); the
        pod's status does, and whoever sees it cancels this and calls ``drain``.

        Raises:
            ApiStatusError: Reading the log is forbidden, or has failed again and again.
            ApiUnreachableError: It has failed again and again.
        """
        failures = 0
        delays = backoff(_AFTER_END_SECONDS, _LONGEST_DELAY_SECONDS)
        while True:
            position = self._position
            try:
                await self._read(follow=True)
            except (ApiStatusError, ApiUnreachableError) as error:
                failures += 1
                _log.debug("%s: attempt %d failed: %s", self._path, failures, error.summary)
                if failures == _TRIES_WITHOUT_A_LINE or getattr(error, "status", None) == HTTPStatus.FORBIDDEN:
                    raise
                if failures == 1:
                    delays = backoff(_AFTER_ERROR_SECONDS, _LONGEST_DELAY_SECONDS)
            if self._position != position:
                failures, delays = 0, backoff(_AFTER_END_SECONDS, _LONGEST_DELAY_SECONDS)
            delay = next(delays)
            _log.debug("%s: the stream ended; reading on in %.1f s", self._path, delay)
            await asyncio.sleep(delay)

    async def drain(self) -> None:
        """Hands on what is left of the log of a container that has ended.

        Raises:
            ApiStatusError: The log is gone, or may not be read.
            ApiUnreachableError: It can't be read now.
        """
        await self._read(follow=False)

    @property
    def _position(self) -> tuple[bytes, int]:
        return self._last_time, self._seen_at_last_time

    async def _read(self, *, follow: bool) -> None:
        params = {"container": self._container, "timestamps": "true"}
        if follow:
            params["follow"] = "true"
        if self._last_time:
            params["sinceTime"] = _whole_seconds(self._last_time)
        start, repeated = self._last_time, self._seen_at_last_time
        async with self._api.stream(self._path, params, read_timeout_seconds=None) as lines:
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


def _is_time(text: bytes) -> bool:
    """Whether it looks like the RFC 3339 time, of nine digits after the second, that the kubelet puts before a line."""
    return text[:4].isdigit() and text[10:11] == b"T"


def _whole_seconds(time: bytes) -> str:
    """The time without its fraction; the zone stays."""
    text = time.decode("ascii")
    head, _, tail = text.partition(".")
    return head + tail.lstrip("0123456789")
