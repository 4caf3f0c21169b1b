"""A copy of the objects that a label selector finds, kept current by one watch.

What goes wrong with watches, and what happens here:

- The server ends a watch at a time of its choosing, at the latest after ``timeoutSeconds``: watch on from the last
  resource version; nothing is missed.
- A connection dies without a word (a NAT, a suspended laptop): TCP keepalive and a read timeout beyond the period of
  bookmarks end it; watch on.
- The resource version is too old (410), as HTTP status or as an ERROR event inside of a 200 stream: list anew.
- The server closes the stream at once, cleanly and without an event, as some do for a version that is too old: the
  version is dropped, list anew. Otherwise this would go round for ever.
- An event comes again (after going on from a bookmark, or in list and watch): it is dropped by uid and version.
- An object vanishes while nobody watches: the next list lacks it, and a synthetic DELETED is told. A lost pod is
  found that way.
- The server is overloaded or restarts (429, 5xx, refused): wait, with full jitter up to 30 s, so that many clients
  don't come back together; the delay is reset by a stream that has held for a minute.
- The server is gone for good: after ``unreachable_seconds`` without an answer the last error is raised.
- We are not, or no longer, allowed (401, 403): raised at once.

Versions are opaque: they are compared for equality and never by order.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from enum import Enum
from http import HTTPStatus
from typing import Any

from k8sflow.debug_log import DebugLog
from k8sflow.errors import ApiStatusError, ApiUnreachableError, KubernetesError
from k8sflow.kubernetes.api import KubernetesApi, backoff
from k8sflow.kubernetes.manifest import Manifest

WATCH_SECONDS = 290
READ_TIMEOUT_SECONDS = 75.0  # bookmarks come about once a minute
_HEALTHY_SECONDS = 60.0
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
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


OnChange = Callable[[Change, Manifest], None]


def identity_of(item: Manifest) -> Manifest:
    """What a reflector has to keep of an object at least."""
    metadata = item["metadata"]
    kept = {key: metadata[key] for key in ("name", "uid", "resourceVersion", "labels") if key in metadata}
    return {"metadata": kept}


class _TooOldError(Exception):
    """The resource version can't be watched from any more."""


class Reflector:
    """Keeps ``objects`` (by uid) current, and tells each change once.

    Args:
        api: The client.
        path: The collection: ``/api/v1/namespaces/NAMESPACE/pods``.
        label_selector: Which objects of it.
        on_change: Called in the event loop with each change, after ``objects`` has it. A synthetic DELETED comes
            with what was kept of the object.
        keep: What ``objects`` keeps of each; ``identity_of`` where thousands would otherwise fill the memory.
        unreachable_seconds: How long the server may give no answer.
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
        unreachable_seconds: float = 300.0,
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

    async def run(self) -> None:
        """Lists and watches until it is cancelled.

        Raises:
            KubernetesError: The server refuses for good, or has not answered for ``unreachable_seconds``.
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
                self._raise_if_gone_for_good(error)
            except ApiUnreachableError as error:
                reason = error.summary
                self._raise_if_gone_for_good(error)
            if clock() - started >= _HEALTHY_SECONDS:
                delays = self._delays()
            delay = next(delays)
            action = "Listing again" if self._version is None else "Watching on"
            _log.debug("%s: %s %s in %.1f s.", self._path, reason, action, delay)
            await asyncio.sleep(delay)

    def _delays(self) -> Iterator[float]:
        return backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS)

    def _raise_if_gone_for_good(self, error: KubernetesError) -> None:
        silent_seconds = asyncio.get_running_loop().time() - self._answered_at
        if silent_seconds > self._unreachable_seconds:
            raise KubernetesError(
                f"{error.summary} It has given no useful answer for {silent_seconds:.0f} s.",
                cause=error.cause,
                advice=error.advice,
            ) from error

    def _answered(self) -> None:
        self._answered_at = asyncio.get_running_loop().time()

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
        """Takes events until the server ends the stream."""
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
            async for line in lines:
                events += 1
                self._event(_parsed(line))
                self._answered()
        if events == 0 and clock() - started < _INSTANT_SECONDS:
            raise _TooOldError

    def _event(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == HTTPStatus.GONE:
                raise _TooOldError
            raise ApiUnreachableError(f"the watch of {self._path} broke off.", cause=str(item.get("message") or item))
        self._version = item["metadata"]["resourceVersion"]
        if kind == "DELETED":
            self._drop(item)
        elif kind in {"ADDED", "MODIFIED"}:
            self._take(item)

    def _take(self, item: Manifest) -> None:
        metadata = item["metadata"]
        metadata.pop("managedFields", None)  # a fifth of a pod, and of no use here
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
        raise ApiUnreachableError("a watch was cut off in the middle of an event.", cause=repr(line[:100])) from error
    return event
