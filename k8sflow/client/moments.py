"""Times as Metaflow's client gives them: in the reader's time zone, and without one, as ``datetime.now()`` does."""

from __future__ import annotations

from datetime import datetime


def local(seconds: float) -> datetime:
    """A moment in local time.

    Of the hour that comes twice when summer time ends, ``fold`` says which one is meant, so ``timestamp()`` is exact.

    Args:
        seconds: Seconds since 1970.
    """
    return datetime.fromtimestamp(seconds)  # noqa: DTZ006  naive on purpose
