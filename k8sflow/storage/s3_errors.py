"""Causes of errors of S3 that botocore doesn't name."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from k8sflow.errors import ConfigurationError

_TOLERATED_SKEW_SECONDS = 900


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
    if code != "RequestTimeTooSkewed" and not (code == "403" and _is_far_from(date)):
        return None
    return ConfigurationError(
        f"{what}, because the clock of this machine is wrong.",
        cause=f"The server's time is {date}; requests are signed with the time.",
        advice="Set the clock, or turn on its synchronization (`timedatectl`).",
    )


def _is_far_from(date: str) -> bool:
    """True if this machine's time differs from a server's by more than S3 tolerates."""
    try:
        seconds = (parsedate_to_datetime(date) - _now()).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a zone
        return False
    return abs(seconds) > _TOLERATED_SKEW_SECONDS


def _now() -> datetime:
    return datetime.now(timezone.utc)
