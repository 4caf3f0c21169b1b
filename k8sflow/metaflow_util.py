"""The functions that flows import from ``metaflow.util``."""

from __future__ import annotations

from k8sflow.user import current_user

__all__ = ["get_username", "resolve_identity", "to_bytes", "to_unicode"]


def get_username() -> str:
    """The name of this process's user, with which runs are tagged."""
    return current_user()


def resolve_identity() -> str:
    """The user as a namespace: ``user:name``."""
    return f"user:{current_user()}"


def to_bytes(value: object) -> bytes:
    """Bytes as they are, and anything else as its text in UTF-8."""
    return value if isinstance(value, bytes) else str(value).encode()


def to_unicode(value: object) -> str:
    """The text of bytes in UTF-8, and of anything else."""
    return value.decode() if isinstance(value, bytes) else str(value)
