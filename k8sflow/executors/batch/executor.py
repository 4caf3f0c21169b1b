"""The executor that runs each task as a job of AWS Batch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from k8sflow.aws.api import BatchApi, Boto3Api
from k8sflow.errors import BatchError
from k8sflow.executors.batch.jobs import Jobs
from k8sflow.executors.context import RunContext
from k8sflow.task.spec import TaskSpec

_CANCEL_PATIENCE_SECONDS = 30.0
_ABANDON_SECONDS = 5.0


class BatchExecutor:
    """Runs tasks as jobs of AWS Batch, all of them from one thread.

    Args:
        context: The run. Its ``report`` is called in the executor's thread; after an error it gets no more events, not
            even a ``Finished`` for the tasks that are not finished.
        make_api: Makes the client, where it isn't that of the settings.
    """

    def __init__(self, context: RunContext, make_api: Callable[[], BatchApi] | None = None) -> None:
        self._context = context
        self._region = context.settings.batch_region or context.settings.region
        self._make_api = make_api or (lambda: Boto3Api(self._region, context.notice))
        self._jobs: Jobs | None = None
        self._thread: threading.Thread | None = None

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Takes tasks of one step; their jobs are submitted in the background."""
        if self._jobs is None:
            self._jobs = Jobs(self._make_api(), self._context, self._region)
            self._thread = threading.Thread(target=self._main, args=(self._jobs,), name="k8sflow-batch", daemon=True)
            self._thread.start()
        self._jobs.submit(tasks)

    def cancel(self) -> None:
        """Terminates every job of the run, and returns when none of them runs.

        Raises:
            BatchError: A job can't be terminated, or doesn't end.
        """
        if self._jobs is None:
            return
        self._jobs.api.limit_patience(_CANCEL_PATIENCE_SECONDS)  # also that of a request in flight
        self._stop(self._jobs)
        try:
            self._jobs.cancel()
        finally:
            self._jobs.close()

    def end(self) -> None:
        """As ``cancel``: AWS Batch itself keeps what it knows of jobs that have ended."""
        self.cancel()

    def abandon(self) -> None:
        """Sends the end of every job, without waiting for it."""
        if self._jobs is not None:
            self._jobs.stop()
            self._jobs.api.limit_patience(_ABANDON_SECONDS)
            with contextlib.suppress(BatchError):  # best effort: the process leaves
                self._jobs.send_ends()
            if self._thread is not None:  # a submit in flight
                self._thread.join(_ABANDON_SECONDS)
            if self._jobs.has_strays:
                with contextlib.suppress(BatchError):  # as above
                    self._jobs.end_others()

    def close(self) -> None:
        """Ends the thread; jobs that have not ended keep running, for another driver to take over.

        Where all have ended, those are terminated that appear although nobody waits for them.
        """
        if self._jobs is not None:
            self._jobs.api.limit_patience(_CANCEL_PATIENCE_SECONDS)
            self._stop(self._jobs)
            self._jobs.end_strays()
            self._jobs.close()

    def _stop(self, jobs: Jobs) -> None:
        jobs.stop()
        if self._thread is not None:
            self._thread.join()

    def _main(self, jobs: Jobs) -> None:
        try:
            jobs.serve()
        except Exception as error:  # noqa: BLE001  the thread's border: the driver must hear of everything
            self._context.report(error)
