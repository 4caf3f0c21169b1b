"""What an execution of a task tells its driver: one small JSON document.

It travels through a pipe on this machine and through the termination message in a pod, which Kubernetes cuts at
4096 bytes (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from k8sflow.task.outcome import Diagnosis, Outcome

TERMINATION_MESSAGE_BYTES = 4096


@dataclass(frozen=True)
class Transition:
    """Where a finished task sends the run.

    Args:
        steps: The names of the next steps, in the order of ``self.next()``; empty after the end step.
        width: How many branches the foreach opens, or None where the step opens none.
    """

    steps: tuple[str, ...] = ()
    width: int | None = None


@dataclass(frozen=True)
class TaskResult:
    """How one execution of a task ended, and where the run goes from there.

    Args:
        outcome: How it ended.
        transition: Where the run goes on; only after a success.
        diagnosis: What a person is told; only after a failure.
    """

    outcome: Outcome
    transition: Transition | None = None
    diagnosis: Diagnosis | None = None

    def to_json(self) -> str:
        """The result as JSON of any length."""
        return json.dumps(self._document(), ensure_ascii=False, separators=(",", ":"))

    def to_termination_message(self) -> str:
        """The result as JSON of at most 4096 bytes; the diagnosis loses the head of its detail first."""
        text = self.to_json()
        result = self
        while (excess := len(text.encode()) - TERMINATION_MESSAGE_BYTES) > 0 and result.diagnosis is not None:
            result = replace(result, diagnosis=_shortened(result.diagnosis, excess))
            text = result.to_json()
        return text

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"outcome": self.outcome.value}
        if self.transition is not None:
            document["transition"] = {"steps": list(self.transition.steps), "width": self.transition.width}
        if self.diagnosis is not None:
            document["diagnosis"] = {
                "summary": self.diagnosis.summary,
                "detail": self.diagnosis.detail,
                "resolution": self.diagnosis.resolution,
            }
        return document

    @staticmethod
    def from_json(text: str) -> TaskResult:
        """The result that ``to_json`` wrote.

        Raises:
            ValueError: The text is not such a document.
        """
        try:
            document = json.loads(text)
            outcome = Outcome(document["outcome"])
            transition = diagnosis = None
            if "transition" in document:
                found = document["transition"]
                transition = Transition(tuple(found["steps"]), found["width"])
            if "diagnosis" in document:
                diagnosis = Diagnosis(category=outcome, **document["diagnosis"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a task result: {text[:200]!r}") from error
        return TaskResult(outcome, transition, diagnosis)


def _shortened(diagnosis: Diagnosis, excess: int) -> Diagnosis:
    """The diagnosis with about ``excess`` bytes less: from the head of the detail, then from the end of the rest."""
    if diagnosis.detail:
        cut = max(excess, 64)
        kept = diagnosis.detail[cut + 4 :] if len(diagnosis.detail) > cut + 4 else ""
        return replace(diagnosis, detail=f"…{kept}" if kept else "")
    if diagnosis.resolution:
        return replace(diagnosis, resolution="")
    return replace(diagnosis, summary=diagnosis.summary[: max(0, len(diagnosis.summary) - excess)])
