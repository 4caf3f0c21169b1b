"""The connections and the temporary files that an ``S3`` has until it is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from k8sflow.errors import S3ClosedError
from k8sflow.flow.current import current
from k8sflow.s3.bucket import PARALLEL, Bucket
from k8sflow.s3.folder import Folder
from k8sflow.s3.run_data import settings
from k8sflow.s3.urls import Location
from k8sflow.s3_options import S3Options
from k8sflow.storage.patience import COMMAND_SECONDS, Patience, say

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Session:
    """Connections and files; all are opened when they are first used.

    A pickled session has none: they belong to their process.

    Args:
        tmproot: As of ``S3``.
        endpoint: As of ``S3``.
        region: As of ``S3``.
    """

    def __init__(self, tmproot: str | os.PathLike[str] | None, endpoint: str | None, region: str | None) -> None:
        self._made_with = (tmproot, endpoint, region)
        self._buckets: dict[str, Bucket] = {}
        self._folder: Folder | None = None
        self._lock = threading.RLock()
        self._process = os.getpid()
        self.is_closed = False

    def __reduce__(self) -> tuple[type[Session], tuple[object, ...]]:
        """Pickles the arguments only."""
        self.check()
        return Session, self._made_with

    def bucket(self, place: Location) -> Bucket:
        """The bucket of a location."""
        self.check()
        with self._lock:
            self.check()
            if place.bucket not in self._buckets:
                self._buckets[place.bucket] = self._opened(place.bucket)
            return self._buckets[place.bucket]

    def _opened(self, name: str) -> Bucket:
        found = settings()
        _, endpoint, region = self._made_with
        patience = Patience(found.storage_patience if current.is_running_flow else COMMAND_SECONDS, report=say)
        server = found.endpoint if endpoint is None else endpoint or None
        return Bucket(name, server, region or found.region, patience, S3Options.of(found))

    def folder(self) -> Folder:
        """The folder for temporary files."""
        self.check()
        with self._lock:
            self.check()
            self._folder = self._folder or Folder(self._made_with[0])
            return self._folder

    def parallel(self, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """The function's results for all items. Threads end with the call, so that a process may be forked after it."""
        self.check()
        if len(items) < 2:  # noqa: PLR2004  nothing to do in parallel
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(PARALLEL, len(items)), "k8sflow-s3") as pool:
            return list(pool.map(function, items))

    def _renew_after_fork(self) -> None:
        """Gives a fork, such as a worker of parallel_map, connections and a lock of its own; the folder is shared."""
        if self._process != os.getpid():
            self._process, self._buckets, self._lock = os.getpid(), {}, threading.RLock()

    def check(self) -> None:
        """Prepares a call: in a fork, too. Raises S3ClosedError if it is closed."""
        self._renew_after_fork()
        if self.is_closed:
            raise S3ClosedError(
                "this S3 is closed.",
                cause="Its `with S3(…)` block has ended, or close() was called.",
                advice="Call it inside of the block, or make another one.",
            )

    def close(self) -> None:
        """Deletes the files, and closes the connections."""
        self._renew_after_fork()
        with self._lock:
            self.is_closed = True
            if self._folder is not None:
                self._folder.close()
            for bucket in self._buckets.values():
                bucket.close()
            self._buckets.clear()
