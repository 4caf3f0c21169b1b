"""The end of an execution of a task, as a value and as one small JSON document.

It travels through a pipe on this machine and through the termination message in a pod, which Kubernetes cuts at
4096 bytes (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from k8sflow.flow.outcome import Outcome
from k8sflow.task.spec import TaskName

TERMINATION_MESSAGE_BYTES = 4096
_CUT = "…"
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Transition:
    """The steps that follow a finished task.

    Args:
        steps: The names of the next steps, in the order of ``self.next()``; empty after the end step.
        width: How many branches the foreach opens, or None where the step opens none.
        max_parallel: How many of these branches may be under way at a time; None for any number.
    """

    steps: tuple[str, ...] = ()
    width: int | None = None
    max_parallel: int | None = None


@dataclass(frozen=True)
class Failure:
    """The explanation of a failure for people.

    Args:
        summary: What happened, in one sentence without the task's name.
        detail: The evidence: the scheduler's message, a traceback, the last lines of output.
        resolution: What to do about it.
        error_type: The class of the exception, where the user's code raised one: ``builtins.ValueError``.
        is_final: Whether another execution would fail in the same way, although the infrastructure is to blame.
    """

    summary: str
    detail: str = ""
    resolution: str = ""
    error_type: str = ""
    is_final: bool = False


@dataclass(frozen=True)
class TaskResult:
    """The end of one execution of a task, and the steps that follow it.

    Args:
        outcome: How it ended.
        transition: The next steps; only after a success.
        failure: The explanation for people; only after a failure.
        note: A problem beside it, which the end of the run reports: output that could not be stored.
        log_lines: How many lines its container wrote to its log before this result; None where that is unknown.
    """

    outcome: Outcome
    transition: Transition | None = None
    failure: Failure | None = None
    note: str = ""
    log_lines: int | None = None

    @property
    def explained(self) -> Failure:
        """The failure's explanation; where there is none, one that names the outcome."""
        return self.failure or Failure(self.outcome.value)

    def to_json(self) -> str:
        """The result as JSON of any length; what UTF-8 has no bytes for (a part of a file name) is escaped."""
        return escaped(json.dumps(self._document(), ensure_ascii=False, separators=(",", ":")))

    def to_termination_message(self) -> str:
        """The result as JSON of at most 4096 bytes; the failure loses the head of its detail first.

        A transition that doesn't fit is null: no result, so that the reader asks the store.
        """
        text = self.to_json()
        if len(text.encode()) <= TERMINATION_MESSAGE_BYTES:
            return text
        if self.note and self.failure is None:
            return replace(self, note="").to_termination_message()
        if self.failure is None:
            return json.dumps({"outcome": self.outcome.value, "transition": None}, separators=(",", ":"))
        empty = replace(self, failure=replace(self.failure, summary="", detail="", resolution=""))
        room = TERMINATION_MESSAGE_BYTES - len(empty.to_json().encode())
        return replace(self, failure=_shortened(self.failure, room)).to_json()

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"outcome": self.outcome.value}
        if self.transition is not None:
            document["transition"] = {"steps": list(self.transition.steps), "width": self.transition.width}
            if self.transition.max_parallel is not None:
                document["transition"]["max_parallel"] = self.transition.max_parallel
        if self.failure is not None:
            document["diagnosis"] = {
                "summary": self.failure.summary,
                "detail": self.failure.detail,
                "resolution": self.failure.resolution,
            }
            if self.failure.error_type:
                document["diagnosis"]["error_type"] = self.failure.error_type
            if self.failure.is_final:
                document["diagnosis"]["is_final"] = True
        if self.note:
            document["note"] = self.note
        if self.log_lines is not None:
            document["log_lines"] = self.log_lines
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
            transition = failure = None
            if "transition" in document:
                found = document["transition"]
                transition = Transition(tuple(found["steps"]), found["width"], found.get("max_parallel"))
            if "diagnosis" in document:
                failure = Failure(**document["diagnosis"])
            note = str(document.get("note", ""))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a task result: {text[:200]!r}") from error
        return TaskResult(outcome, transition, failure, note, document.get("log_lines"))


def failed(
    outcome: Outcome,
    summary: str,
    detail: str = "",
    resolution: str = "",
    error_type: str = "",
    *,
    is_final: bool = False,
) -> TaskResult:
    """The result of an execution that failed; the arguments are those of ``Failure``."""
    return TaskResult(outcome, failure=Failure(summary, detail, resolution, error_type, is_final))


def ended_with(cause: TaskName) -> TaskResult:
    """The result of a task that was ended because one with which it has to run together has failed."""
    return failed(Outcome.CANCELLED, f"it was ended, since {cause}, which it has to run together with, has failed")


def escaped(json_text: str) -> str:
    """JSON with the surrogates in it as escapes, so that it can be encoded, and is read as what it was."""
    return _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)


def _shortened(failure: Failure, room: int) -> Failure:
    """The failure in so many bytes of JSON: the end of its detail, and the beginnings of the rest."""
    resolution = _head(failure.resolution, room // 4)
    rest = room - _cost(resolution)
    detail = _tail(failure.detail, max(rest - _cost(failure.summary), rest // 2))
    summary = _head(failure.summary, rest - _cost(detail))
    resolution = _head(failure.resolution, room - _cost(detail) - _cost(summary))
    return replace(failure, summary=summary, detail=detail, resolution=resolution)


def _cost(text: str) -> int:
    """The number of bytes that a text takes in JSON."""
    return len(escaped(json.dumps(text, ensure_ascii=False)).encode()) - 2


def _head(text: str, room: int) -> str:
    if len(text) <= room and _cost(text) <= room:
        return text
    count = (
        bisect.bisect_right(range(min(room, len(text))), room - _cost(_CUT), key=lambda count: _cost(text[:count])) - 1
    )
    return text[: max(count, 0)] + _CUT


def _tail(text: str, room: int) -> str:
    if len(text) <= room and _cost(text) <= room:
        return text
    start = len(text)
    count = (
        bisect.bisect_right(
            range(min(room, len(text))), room - _cost(_CUT), key=lambda count: _cost(text[start - count :])
        )
        - 1
    )
    return _CUT + text[start - max(count, 0) :]
