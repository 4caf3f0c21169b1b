"""The parts of names that systems such as Kubernetes and AWS Batch accept, derived from names that people chose."""

from __future__ import annotations

import hashlib
import re

DIGEST_LENGTH = 10


def slug(text: str, length: int, kept: str = "a-z0-9") -> str:
    """The beginning of a text, with a hyphen in place of other characters than those that are kept."""
    found = re.sub(f"[^{kept}]+", "-", text).strip("-")
    return found[:length].strip("-") or "x"


def digest(*parts: str) -> str:
    """A short hash, which keeps names different whose texts are."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]
