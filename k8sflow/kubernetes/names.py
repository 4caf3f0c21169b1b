"""Names and labels that Kubernetes accepts (RFC 1123), derived from names that people chose.

If a name has to be changed or cut, a hash of the original is appended, so that different names stay different.
"""

from __future__ import annotations

import hashlib
import re

# A Job's pods get "-xxxxx" appended, an Indexed Job's "-<index>-xxxxx", within the 63 bytes of a DNS label.
LONGEST_JOB_NAME = 50
LONGEST_LABEL = 63

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_HASH_LENGTH = 10


def label_value(text: str) -> str:
    """The text as a label's value: unchanged if it is valid, else shortened and made unique by a hash."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[: LONGEST_LABEL - _HASH_LENGTH - 1].strip("-_.")
    return f"{kept}-{_digest(text)}" if kept else _digest(text)


def job_name(*, flow: str, run: str, step: str, task: str, attempt: int) -> str:
    """The name of a Job, derived from the attempt and the ids of its tasks alone, so that a create can be repeated."""
    return f"{_slug(flow, 21)}-{_slug(step, 17)}-{_digest(flow, run, step, task, str(attempt))}"


def owner_name(*, flow: str, run: str) -> str:
    """The name of the object that owns all others of a run."""
    return f"{_slug(flow, 21)}-run-{_digest(flow, run)}"


def service_name(*, flow: str, run: str) -> str:
    """The name of the Service of a run's pods; it begins with a letter (RFC 1035)."""
    return f"gang-{_slug(flow, 21)}-{_digest(flow, run)}"


def _slug(text: str, length: int) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return slug[:length].strip("-") or "x"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH_LENGTH]
