"""Names and labels that Kubernetes accepts (RFC 1123), derived from names that people chose.

If a name has to be changed or cut, a hash of the original is appended, so that different names stay different.
"""

from __future__ import annotations

import re

from k8sflow.naming import DIGEST_LENGTH, digest, slug

# A Job's pods get "-xxxxx" appended, an Indexed Job's "-<index>-xxxxx", within the 63 bytes of a DNS label.
LONGEST_JOB_NAME = 50
LONGEST_LABEL = 63

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def label_value(text: str) -> str:
    """The text as a label's value: unchanged if it is valid, else shortened and made unique by a hash."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[: LONGEST_LABEL - DIGEST_LENGTH - 1].strip("-_.")
    return f"{kept}-{digest(text)}" if kept else digest(text)


def job_name(*, flow: str, run: str, step: str, task: str, attempt: int) -> str:
    """The name of a Job, derived from the attempt and the ids of its tasks alone, so that a create can be repeated."""
    return f"{slug(flow.lower(), 21)}-{slug(step.lower(), 17)}-{digest(flow, run, step, task, str(attempt))}"


def owner_name(*, flow: str, run: str) -> str:
    """The name of the object that owns all others of a run."""
    return f"{slug(flow.lower(), 21)}-run-{digest(flow, run)}"


def service_name(*, flow: str, run: str) -> str:
    """The name of the Service of a run's pods; it begins with a letter (RFC 1035)."""
    return f"gang-{slug(flow.lower(), 21)}-{digest(flow, run)}"
