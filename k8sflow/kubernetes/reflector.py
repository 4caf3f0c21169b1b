"""A copy of the objects that a label selector matches, kept current by one watch.

The failures of watches, and how they are handled:

- The server ends a watch at a time of its choosing, at the latest after ``timeoutSeconds``: watch on from the last
  resource version; nothing is missed.
- A connection dies silently (a NAT, a suspended laptop): TCP keepalive and a read timeout longer than the period of
  bookmarks end it; watch on.
- The server stops answering, but its kernel keeps the connection alive: it is asked for its version when the watch has
  been silent for some seconds, as HTTP/2 clients send a PING; the client reports that no answer comes. The watch stays.
- The resource version is too old (410), as an HTTP status or as an ERROR event in a 200 stream: list again.
- The server closes the stream at once, cleanly and without an event, as some do for a version that is too old: drop
  the version and list again, to avoid an endless loop.
- An event is repeated (after resuming from a bookmark, or in list and watch): dropped by uid and version.
- An object vanishes while there is no watch: the next list lacks it, and a synthetic DELETED is reported. Lost pods
  are found that way.
- The server is overloaded or restarts (429, 5xx, refused): wait, with full jitter up to 30 s, so that many clients
  don't come back at once; a stream that has lasted for a minute resets the delay.
- The server is unreachable for good: after ``unreachable_seconds`` without an answer the last error is raised.
- Access is denied, or has been revoked (401, 403): raised at once.

Versions are opaque: they are compared for equality and never by order.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from http import HTTPStatus
from typing import Any

from k8sflow.debug_log import DebugLog
from k8sflow.errors import ApiStatusError, ApiUnreachableError, KubernetesError
from k8sflow.kubernetes.api import KubernetesApi, backoff
from k8sflow.kubernetes.manifest import Manifest

WATCH_SECONDS = 290
UNREACHABLE_SECONDS = 300.0
READ_TIMEOUT_SECONDS = 75.0  # bookmarks arrive about once a minute
_HEALTHY_SECONDS = 60.0
_SILENT_SECONDS = 5.0  # with the time that the client gives an answer, less than ten seconds
_INSTANT_SECONDS = 2.0
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 30.0
_HOPELESS = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
}

_log = DebugLog(__name__)


class Change(Enum):
    """A kind of change to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


OnChange = Callable[[Change, Manifest], None]


def identity_of(item: Manifest, labels: Collection[str] = ()) -> Manifest:
    """The minimum that a reflector must keep of an object, and some of its labels, if it has them."""
    metadata = item["metadata"]
    kept = {key: metadata[key] for key in ("name", "uid", "resourceVersion")}
    has = metadata.get("labels") or {}
    if wanted := {label: sys.intern(has[label]) for label in labels if label in has}:
        kept["labels"] = wanted
    return {"metadata": kept}


class _TooOldError(Exception):
    """The resource version is too old to watch from."""


class Reflector:
    """Keeps ``objects`` (by uid) current, and reports each change once.

    Args:
        api: The client.
        path: The collection: ``/api/v1/namespaces/NAMESPACE/pods``.
        label_selector: Selects objects of the collection.
        on_change: Called in the event loop with each change, after ``objects`` was updated. A synthetic DELETED
            carries the part of the object that was kept.
        keep: Returns the part of an object to keep; ``identity_of`` if there may be thousands.
        unreachable_seconds: How long the server may be unreachable.
        read_timeout_seconds: How long a watch may be silent before it counts as dead.
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        *,
        label_selector: str,
        on_change: OnChange,
        keep: Callable[[Manifest], Manifest] = lambda item: item,
        unreachable_seconds: float = UNREACHABLE_SECONDS,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        self.objects: dict[str, Manifest] = {}
        self.is_synced = asyncio.Event()
        self._api = api
        self._path = path
        self._selector = label_selector
        self._on_change = on_change
        self._keep = keep
        self._unreachable_seconds = unreachable_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._version: str | None = None
        self._answered_at = 0.0
        self._heard_at = 0.0

    async def run(self) -> None:
        """Lists and watches until it is cancelled.

        Raises:
            KubernetesError: The server denies access, or has not answered for ``unreachable_seconds``.
        """
        clock = asyncio.get_running_loop().time
        self._answered_at = clock()
        delays = self._delays()
        while True:
            started = clock()
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
                reason = "The server ended the watch."
                if clock() - started >= _INSTANT_SECONDS:
                    _log.debug("%s: %s Watching on at once.", self._path, reason)
                    continue
            except _TooOldError:
                self._version, reason = None, "The resource version is too old."
            except ApiStatusError as error:
                if error.status in _HOPELESS:
                    raise
                if error.status == HTTPStatus.GONE:
                    self._version = None
                reason = error.summary
                self._raise_if_unreachable_for_long(error)
            except ApiUnreachableError as error:
                reason = error.summary
                self._raise_if_unreachable_for_long(error)
            if clock() - started >= _HEALTHY_SECONDS:
                delays = self._delays()
            delay = next(delays)
            action = "Listing again" if self._version is None else "Watching on"
            _log.debug("%s: %s %s in %.1f s.", self._path, reason, action, delay)
            await asyncio.sleep(delay)

    def _delays(self) -> Iterator[float]:
        return backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS)

    def _raise_if_unreachable_for_long(self, error: KubernetesError) -> None:
        silent_seconds = asyncio.get_running_loop().time() - self._answered_at
        if silent_seconds > self._unreachable_seconds:
            raise KubernetesError(
                f"{error.summary} It has not answered usefully for {silent_seconds:.0f} s.",
                cause=error.cause,
                advice=error.advice,
            ) from error

    def _answered(self) -> None:
        self._answered_at = self._heard_at = asyncio.get_running_loop().time()

    async def _ping_in_silence(self) -> None:
        """Asks the server for a sign of life when the watch has none, until it is cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(0.0, self._heard_at + _SILENT_SECONDS - clock()))
            if clock() >= self._heard_at + _SILENT_SECONDS:
                await self._api.ping()
                self._heard_at = clock()

    async def _list(self) -> None:
        items, version = await self._api.list(self._path, label_selector=self._selector)
        self._answered()
        present = set()
        for item in items:
            present.add(item["metadata"]["uid"])
            self._take(item)
        for uid in self.objects.keys() - present:
            self._drop(self.objects[uid])
        self._version = version
        _log.debug("%s: listed %d objects at version %s", self._path, len(items), version)
        self.is_synced.set()

    async def _watch(self) -> None:
        """Processes events until the server ends the stream."""
        assert self._version is not None
        clock = asyncio.get_running_loop().time
        started, events = clock(), 0
        params = {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "labelSelector": self._selector,
        }
        async with self._api.stream(self._path, params, read_timeout_seconds=self._read_timeout_seconds) as lines:
            self._answered()
            pinging = asyncio.ensure_future(self._ping_in_silence())
            try:
                async for line in lines:
                    events += 1
                    self._event(_parsed(line))
                    self._answered()
            finally:
                pinging.cancel()
        if events == 0 and clock() - started < _INSTANT_SECONDS:
            raise _TooOldError

    def _event(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == HTTPStatus.GONE:
                raise _TooOldError
            raise ApiUnreachableError(f"the watch of {self._path} failed.", cause=str(item.get("message") or item))
        self._version = item["metadata"]["resourceVersion"]
        if kind == "DELETED":
            self._drop(item)
        elif kind in {"ADDED", "MODIFIED"}:
            self._take(item)

    def _take(self, item: Manifest) -> None:
        metadata = item["metadata"]
        metadata.pop("managedFields", None)  # a fifth of a pod, and unused here
        known = self.objects.get(metadata["uid"])
        if known is not None and known["metadata"]["resourceVersion"] == metadata["resourceVersion"]:
            return
        self.objects[metadata["uid"]] = self._keep(item)
        self._on_change(Change.ADDED if known is None else Change.MODIFIED, item)

    def _drop(self, item: Manifest) -> None:
        if self.objects.pop(item["metadata"]["uid"], None) is not None:
            self._on_change(Change.DELETED, item)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise ApiUnreachableError("a watch was cut off within an event.", cause=repr(line[:100])) from error
    return event
