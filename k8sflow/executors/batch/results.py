"""The result of a task whose job has ended: what its agent stored, else what AWS knows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

from k8sflow.aws.api import BatchApi
from k8sflow.aws.outcome import JobEnd, with_output
from k8sflow.errors import K8sflowError
from k8sflow.executors.base import TAIL_LINES
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.run_store import RunStore
from k8sflow.task.container_ends import with_evidence
from k8sflow.task.failure import not_stored
from k8sflow.task.host.framing import OutputStream, Piece, ResultLine, decode
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result, recorded_result


@dataclass(frozen=True)
class Results:
    """Finds the results of a run's tasks; its methods may be called in any thread.

    Args:
        api: AWS Batch.
        run_store: The run's records.
    """

    api: BatchApi
    run_store: RunStore

    def of(self, spec: TaskSpec, end: JobEnd, options: BatchOptions) -> TaskResult:
        """The result of an execution: its commit, its recorded outcome, its log, or what the job's end tells."""
        try:
            if (committed := committed_result(self.run_store, spec)) is not None:
                return committed
            record = self.run_store.read_outcome(spec.name.step, spec.name.id, spec.attempt)
        except K8sflowError as error:
            return not_stored(error)
        # The agent reports SIGTERM as cancelled, and only AWS knows why it was sent.
        if record is not None and record.outcome.is_failure and record.outcome is not Outcome.CANCELLED:
            return recorded_result(record)
        if end.result.outcome is Outcome.CANCELLED or not end.log_stream:
            return end.result
        return self._from_log(spec, end, options)

    def _from_log(self, spec: TaskSpec, end: JobEnd, options: BatchOptions) -> TaskResult:
        """The result in the log in CloudWatch, where the store has none, such as when it could not be reached."""
        found = [*map(decode, self.api.log_lines(end.log_group, end.log_stream))]
        pieces = [each for each in found if isinstance(each, Piece)]
        self._keep(spec, pieces)
        for each in found:
            if isinstance(each, ResultLine) and (reported := _reported(each.text)) is not None:
                return reported
        lines = b"".join(piece.data for piece in pieces[-TAIL_LINES:]).decode(errors="replace").strip()
        return with_evidence(with_output(end.result, str(options.image), lines), tail=lines)

    def _keep(self, spec: TaskSpec, pieces: Sequence[Piece]) -> None:
        """Stores output that only CloudWatch has, so that ``logs`` and the client show it as any other."""
        name = spec.name
        with suppress(K8sflowError):  # it is shown as evidence of the failure nevertheless
            for stream in get_args(OutputStream):
                data = b"".join(piece.data for piece in pieces if piece.stream == stream)
                if data and not self.run_store.read_log(name.step, name.id, spec.attempt, stream):
                    self.run_store.complete_log(name.step, name.id, spec.attempt, stream, data)


def _reported(text: str) -> TaskResult | None:
    try:
        found = TaskResult.from_json(text)
    except ValueError:
        return None  # cut off
    return found if found.outcome is not Outcome.CANCELLED else None
