"""Causes of errors of S3 that botocore doesn't name."""

from __future__ import annotations

import math
import socket
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from k8sflow.errors import ConfigurationError

_TOLERATED_SKEW_SECONDS = 900
_TOO_SKEWED = "RequestTimeTooSkewed"


def why_unreachable(error: BaseException) -> str:
    """The system's reason why there is no connection, which botocore's message lacks."""
    seen: list[BaseException] = []
    reason: BaseException | None = error
    while reason is not None and reason not in seen:
        if isinstance(reason, socket.gaierror):
            return f"its name can't be resolved by DNS ({reason.strerror})"
        if isinstance(reason, ConnectionRefusedError):
            return "the connection was refused, so nothing listens there"
        seen.append(reason)
        reason = reason.__cause__ or reason.__context__
    return str(error).rstrip(".")


def wrong_clock(code: str, date: str, what: str) -> ConfigurationError | None:
    """The error of a refusal if the reason is this machine's clock, since requests are signed with the time.

    Args:
        code: The code of the refusal; that of a HEAD request is only its status.
        date: The server's time, as in the header ``Date``.
        what: The server, and what it refuses.
    """
    if code != _TOO_SKEWED and not is_of_clock(code, date):
        return None
    return ConfigurationError(
        f"{what}, because the clock of this machine is wrong.",
        cause=f"The server's time is {date}; requests are signed with the time.",
        advice="Set the clock, or turn on its synchronization (`timedatectl`).",
    )


def is_of_clock(code: str, date: str, ahead: float = 0.0) -> bool:
    """True if a request may be refused because it was signed with a time that differs too much from the server's.

    Args:
        code: As of ``wrong_clock``.
        date: As of ``wrong_clock``.
        ahead: The seconds that were added to this machine's time for the signature.
    """
    return code in {_TOO_SKEWED, "403"} and abs(seconds_ahead(date) - ahead) > _TOLERATED_SKEW_SECONDS


def seconds_ahead(date: str) -> float:
    """The seconds by which a server's time is ahead of this machine's; not a number if the date can't be read."""
    try:
        here = datetime.fromtimestamp(time.time(), timezone.utc)
        return (parsedate_to_datetime(date) - here).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a zone
        return math.nan
