"""Names and labels that Kubernetes accepts (RFC 1123), made from names that people gave.

Where a name has to be changed or cut, a hash of the true one keeps two different names apart.
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
    """The text as a label's value: itself where it can be one, else made to fit and told apart by a hash."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[: LONGEST_LABEL - _HASH_LENGTH - 1].strip("-_.")
    return f"{kept}-{_digest(text)}" if kept else _digest(text)


def job_name(*, flow: str, run: str, step: str, task: str, attempt: int) -> str:
    """The name of a task's Job: the same for the same attempt, whoever derives it, so that a create can be repeated."""
    return f"{_slug(flow, 21)}-{_slug(step, 17)}-{_digest(flow, run, step, task, str(attempt))}"


def owner_name(*, flow: str, run: str) -> str:
    """The name of the object that owns all others of a run."""
    return f"{_slug(flow, 21)}-run-{_digest(flow, run)}"


def _slug(text: str, length: int) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return slug[:length].strip("-") or "x"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH_LENGTH]
