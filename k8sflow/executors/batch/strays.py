"""Jobs that may exist although nobody waits for them: the answers to their submits were lost."""

from __future__ import annotations

import time
from dataclasses import dataclass

from k8sflow.aws.api import BatchApi
from k8sflow.aws.outcome import REPLACED
from k8sflow.debug_log import DebugLog
from k8sflow.errors import BatchError
from k8sflow.executors.batch.live import unfinished

_LOOK_SECONDS = 5.0
_LATE_SECONDS = 15.0
# A job that AWS Batch doesn't list by then was never made.
_LONGEST_SECONDS = 300.0
_log = DebugLog(__name__)


@dataclass
class _Stray:
    queue: str
    name: str
    known: str
    since: float


class Strays:
    """Terminates the jobs that a run has submitted without receiving their ids.

    Args:
        api: AWS Batch.
    """

    def __init__(self, api: BatchApi) -> None:
        self._api = api
        self._wanted: list[_Stray] = []
        self._due = 0.0

    @property
    def due(self) -> float | None:
        """The time of the next look; None where there is nothing to look for."""
        return self._due if self._wanted else None

    @property
    def new(self) -> list[str]:
        """The names of those that AWS Batch may not list yet."""
        now = time.monotonic()
        return [stray.name for stray in self._wanted if now - stray.since < _LATE_SECONDS]

    def add(self, queue: str, name: str, known: str = "") -> None:
        """Looks for jobs of a name from now on; for others than the known one, where there is one."""
        self._wanted.append(_Stray(queue, name, known, time.monotonic()))

    def end(self, *, is_due: bool = False) -> None:
        """Terminates those that AWS Batch lists by now, if it is time for a look; in any case if ``is_due`` says so."""
        now = time.monotonic()
        if not self._wanted or (now < self._due and not is_due):
            return
        for stray in self._wanted:
            try:
                self._end(stray)
            except BatchError as error:  # the next look may succeed
                _log.debug("A job %s that may exist can't be terminated: %r", stray.name, error)
        self._wanted = [stray for stray in self._wanted if now - stray.since < _LONGEST_SECONDS]
        self._due = time.monotonic() + _LOOK_SECONDS

    def _end(self, stray: _Stray) -> None:
        for job in unfinished(self._api, [stray.queue], stray.name):
            if job["jobName"] == stray.name and job["jobId"] != stray.known:
                self._api.terminate(str(job["jobId"]), REPLACED)
