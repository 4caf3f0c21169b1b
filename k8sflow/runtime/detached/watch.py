"""Watches the FlowRun of a detached run, which may have an end that is not in the store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from http import HTTPStatus

from k8sflow.errors import ApiStatusError, K8sflowError
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.flowrun import Phase
from k8sflow.kubernetes.kubeconfig import load_access
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.outages import Notice, Outage
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.session import Session
from k8sflow.storage.records import OutcomeRecord

_PATIENCE_SECONDS = 5.0
_ASK_SECONDS = 5.0
_DRIVEN = "is driven by a driver in the cluster"
# A driver that is stopped has as long as its pod, half a minute, to write how the run ended.
_LAST_WORD_SECONDS = 45.0


class FlowRunWatch:
    """Watches the FlowRun of a run, for a process that follows the run in the store.

    The driver writes how the run ended into the store. Where it could not, because the FlowRun was deleted with all
    its objects, or no driver ever started, only the cluster knows that.

    Args:
        session: The run.
        console: Shows that the cluster can't be asked.
        clock: The time in seconds.
    """

    def __init__(self, session: Session, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._console = console
        self._clock = clock
        self._name = flowruns.flowrun_name(session.record.flow, session.record.run)
        self._next = clock()
        self._over_since: float | None = None
        self._outage = Outage("The cluster", self._say, recovery="can be asked again")
        self.end: OutcomeRecord | None = None

    def driver(self) -> str:
        """Describes the process that drives the run, as the end of a sentence about it."""
        try:
            found = _ask(self._session)
        except (K8sflowError, OSError):
            return _DRIVEN
        if found is None or flowruns.phase_of(found) is not None:
            return _DRIVEN
        return f"waits for a controller: none has taken up the FlowRun {self._name} yet"

    def is_over(self) -> bool:
        """True if the run's end won't be written to the store any more; ``end`` has it then."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + _ASK_SECONDS
        try:
            self.end = _end_of(_ask(self._session))
        except (K8sflowError, OSError) as error:
            self._report(error)
            self._over_since = None
            return False
        self._outage.answered()
        if self.end is None:
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = self._clock()
        return self._clock() - self._over_since >= _LAST_WORD_SECONDS

    def _report(self, error: Exception) -> None:
        """Reports that the end may not be seen, and how to look."""
        what = error.summary if isinstance(error, K8sflowError) else str(error)
        self._outage.failed(
            f"The cluster can't be asked whether the run is still driven: {what}\n"
            f"Where nothing comes: kubectl get flowrun {self._name} -n {self._session.placement.namespace}",
            _PATIENCE_SECONDS,
        )

    def _say(self, notice: Notice) -> None:
        self._console.say(notice.text, Tone.NOTICE, is_aside=True)


def end_in_cluster(session: Session) -> OutcomeRecord | None:
    """The end of a run according to its FlowRun; None where that is missing, can't be read, or doesn't say."""
    try:
        found = _ask(session)
    except (K8sflowError, OSError):
        return None
    return None if found is None else _end_of(found)


def _ask(session: Session) -> Manifest | None:
    """The FlowRun of a run; None where there is none."""
    name = flowruns.flowrun_name(session.record.flow, session.record.run)
    path = flowruns.object_path(session.placement.namespace, name)

    async def call() -> Manifest:
        access = load_access(session.settings.kubernetes_context, os.environ)
        async with KubernetesApi(access, patience_seconds=_PATIENCE_SECONDS) as api:
            return await api.get(path)

    try:
        return asyncio.run(call())
    except ApiStatusError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def _end_of(flowrun: Manifest | None) -> OutcomeRecord | None:
    """The end of a run according to its FlowRun; None where it continues."""
    now = time.time()
    if flowrun is None:
        return OutcomeRecord(Outcome.CANCELLED, now, "its FlowRun is not in the cluster any more")
    message = str((flowrun.get("status") or {}).get("message") or "")
    match flowruns.phase_of(flowrun):
        case Phase.SUCCEEDED:
            return OutcomeRecord(Outcome.SUCCEEDED, now)
        case Phase.FAILED:
            return OutcomeRecord(Outcome.NEVER_STARTED, now, message.partition("\n")[0], message)
        case Phase.CANCELLED:
            return OutcomeRecord(Outcome.CANCELLED, now, message)
        case _:
            return None
