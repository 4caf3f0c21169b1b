"""The checklist of ``k8sflow doctor``, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from k8sflow.errors import K8sflowError
from k8sflow.kubernetes.findings import Finding


class Status(str, Enum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class ChecklistRow:
    """One line of the checklist.

    Args:
        section: The heading above it.
        title: What was checked.
        status: The result.
        text: What was found.
        advice: What to do, where something is wrong.
    """

    section: str
    title: str
    status: Status
    text: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Section:
    """Makes the rows of one section.

    Args:
        name: Its heading.
    """

    name: str

    def ok(self, title: str, text: str = "") -> ChecklistRow:
        """A check that passed."""
        return ChecklistRow(self.name, title, Status.OK, text)

    def warning(self, title: str, text: str, advice: str = "") -> ChecklistRow:
        """A check that found something that may matter."""
        return ChecklistRow(self.name, title, Status.WARNING, text, advice)

    def failed(self, title: str, error: K8sflowError) -> ChecklistRow:
        """A check that failed."""
        return ChecklistRow(
            self.name, title, Status.FAILED, " ".join(filter(None, [error.summary, error.cause])), error.advice
        )

    def skipped(self, title: str, text: str) -> ChecklistRow:
        """A check that could not be made, or doesn't matter here."""
        return ChecklistRow(self.name, title, Status.SKIPPED, text)

    def of(self, title: str, findings: Iterable[Finding], text: str) -> list[ChecklistRow]:
        """A row for each finding; where there is none, one that says what is right."""
        rows = [
            ChecklistRow(
                self.name,
                title,
                Status.FAILED if finding.is_error else Status.WARNING,
                " ".join(filter(None, [finding.summary, finding.cause])),
                finding.advice,
            )
            for finding in findings
        ]
        return rows or [self.ok(title, text)]
