"""The end of a run that another process may drive, after someone has asked to cancel it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from k8sflow.errors import RunError
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.lease import EXPIRY_SECONDS, lease_of
from k8sflow.storage.records import CancelRequest, OutcomeRecord
from k8sflow.storage.run_store import RunStore

_LOOK_SECONDS = 0.5
# A driver looks for a request every ten seconds, and then deletes what there is.
_ANSWER_SECONDS = EXPIRY_SECONDS + 30.0


def ended_by_driver(run: RunStore, request: CancelRequest, *, is_detached: bool) -> bool:
    """Waits for the run's end; False if it had no driver, and this process has written its end.

    Raises:
        RunError: Its driver lives and doesn't end it.
    """
    lease = lease_of(run)
    for _ in _looks(_ANSWER_SECONDS):
        if run.read_run_outcome() is not None:
            return True
        if not is_detached and lease.acquire():
            try:
                if run.read_run_outcome() is not None:
                    return True
                run.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), request.summary))
            finally:
                lease.release()
            return False
    if is_detached:  # its driver was killed before it could write the end
        run.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), request.summary))
        return False
    raise RunError(
        f"{run.pathspec} was not cancelled within {_ANSWER_SECONDS:.0f} s: "
        f"its driver, {lease.holder()}, doesn't answer.",
        cause="Its jobs are ended, and the driver was asked to end the run; it may run an older version of k8sflow.",
        advice="End that process.",
    )


def _looks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(_LOOK_SECONDS)
