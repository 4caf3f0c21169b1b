"""The error of the harness: what happened, the likely cause, what to do."""

from __future__ import annotations


class ClusterError(Exception):
    """The test cluster can't be created, found or removed.

    Args:
        summary: What happened, in one sentence.
        cause: The likely cause, or the last lines of the program that failed.
        advice: What to do about it.
    """

    def __init__(self, summary: str, *, cause: str = "", advice: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.cause = cause
        self.advice = advice

    def __str__(self) -> str:
        return "\n".join(part for part in (self.summary, self.cause, self.advice) if part)
