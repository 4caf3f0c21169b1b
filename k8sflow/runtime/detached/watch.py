"""Whether a run that was handed to the cluster has an end that the store doesn't tell: its FlowRun knows."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from http import HTTPStatus

import click

from k8sflow.errors import ApiStatusError, K8sflowError
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.flowrun import Phase
from k8sflow.kubernetes.kubeconfig import load_access
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.runtime.session import ActiveRun
from k8sflow.storage.records import OutcomeRecord
from k8sflow.task.outcome import Outcome

_PATIENCE_SECONDS = 5.0
_ASK_SECONDS = 5.0
# A driver that is told to stop has as long as its pod, half a minute, to write how the run ended.
_LAST_WORD_SECONDS = 45.0


class FlowRunWatch:
    """Looks after the FlowRun of a run, for somebody who follows the run in the store.

    The driver writes how the run ended into the store. Where it could not, since the FlowRun was deleted with all that
    belongs to it, or no driver ever came up, only the cluster knows that nobody will.

    Args:
        active: The run.
        clock: The time in seconds.
    """

    def __init__(self, active: ActiveRun, clock: Callable[[], float] = time.monotonic) -> None:
        self._active = active
        self._clock = clock
        self._name = flowruns.flowrun_name(active.record.flow, active.record.run)
        self._next = clock()
        self._over_since: float | None = None
        self._has_told = False
        self.end: OutcomeRecord | None = None

    def is_over(self) -> bool:
        """Whether nobody will tell the store of the run's end any more; ``end`` says what it was."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + _ASK_SECONDS
        try:
            self.end = _end_of(self._ask())
        except (K8sflowError, OSError) as error:
            self._tell(error)
            self._over_since = None
            return False
        if self.end is None:
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = self._clock()
        return self._clock() - self._over_since >= _LAST_WORD_SECONDS

    def _ask(self) -> Manifest | None:
        """The FlowRun; None where there is none."""
        settings = self._active.settings
        path = flowruns.object_path(self._active.placement.namespace, self._name)

        async def call() -> Manifest:
            access = load_access(settings.kubernetes_context, os.environ)
            async with KubernetesApi(access, patience_seconds=_PATIENCE_SECONDS) as api:
                return await api.get(path)

        try:
            return asyncio.run(call())
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def _tell(self, error: Exception) -> None:
        """Tells once that the end may not be seen, and how to look."""
        if self._has_told:
            return
        self._has_told = True
        what = error.summary if isinstance(error, K8sflowError) else str(error)
        click.secho(
            f"The cluster can't be asked whether the run is still driven: {what}\n"
            f"Where nothing comes: kubectl get flowrun {self._name} -n {self._active.placement.namespace}",
            fg="yellow",
            err=True,
        )


def _end_of(flowrun: Manifest | None) -> OutcomeRecord | None:
    """How a run has ended by its FlowRun; None where it goes on."""
    now = time.time()
    if flowrun is None:
        return OutcomeRecord(Outcome.CANCELLED.value, now, "its FlowRun is not in the cluster any more")
    message = str((flowrun.get("status") or {}).get("message") or "")
    match flowruns.phase_of(flowrun):
        case Phase.SUCCEEDED:
            return OutcomeRecord(Outcome.SUCCEEDED.value, now)
        case Phase.FAILED:
            return OutcomeRecord(Outcome.NEVER_STARTED.value, now, message.partition("\n")[0], message)
        case Phase.CANCELLED:
            return OutcomeRecord(Outcome.CANCELLED.value, now, message)
        case _:
            return None
