"""The user of this process."""

from __future__ import annotations

import getpass
import os


def current_user() -> str:
    """The name of this process's user; ``unknown`` for a user id without a name."""
    try:
        return os.environ.get("K8SFLOW_USER") or getpass.getuser()
    except (KeyError, OSError, ImportError):  # Windows has no module pwd
        return "unknown"
