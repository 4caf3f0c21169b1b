"""Times in the headers of HTTP answers."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime


def seconds_ahead(date: str) -> float:
    """The seconds by which a server's time is ahead of this machine's; not a number if the date can't be read."""
    try:
        here = datetime.fromtimestamp(time.time(), timezone.utc)
        return (parsedate_to_datetime(date) - here).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a zone
        return math.nan


def seconds_of(date: str) -> float:
    """The time in a header such as ``Date``, in seconds since 1970; not a number if it can't be read."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return math.nan
