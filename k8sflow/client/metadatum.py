"""One property of a task in the run's records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Metadatum:
    """One property of a task in the run's records.

    Args:
        name: The property's name.
        value: Its value.
        type: Its kind, which is the name.
        created_at: The start time of the task, or None if unknown.
        task: The task's pathspec.
    """

    name: str
    value: str
    type: str
    created_at: datetime | None
    task: str
