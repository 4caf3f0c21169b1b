"""Causes of errors of S3 that botocore doesn't name."""

from __future__ import annotations

import math
import socket
from datetime import datetime

from k8sflow.errors import AccessError, ConfigurationError
from k8sflow.http_dates import seconds_ahead

_TOLERATED_SKEW_SECONDS = 900
_TOO_SKEWED = "RequestTimeTooSkewed"
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
EXPIRED = {"ExpiredToken", "TokenRefreshRequired"}
# The last one is versitygw's code for an unknown access key.
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "XAdminUserNotFound"}
_DENIED = {"AccessDenied", "403", "Forbidden"}


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


def refused_keys(code: str, server: str, url: str) -> AccessError | None:
    """The error of a refusal if the reason is the keys themselves.

    Args:
        code: As of ``wrong_clock``.
        server: The server.
        url: The bucket.
    """
    if code in EXPIRED:
        return AccessError(
            f"{server} doesn't accept the keys for {url} any more: they have expired ({code}).",
            cause="Temporary keys (with a session token) end after some hours, and an environment keeps the old ones.",
            advice="Get new ones, for pods in the Secret that the setting credentials names, and `resume` the run. "
            "Some renew themselves: here those of a profile with SSO, a role or credential_process; in "
            'pods those of a workload identity (credentials = "service-account").',
        )
    if code in _WRONG_KEYS:
        return AccessError(
            f"{server} doesn't accept the keys for {url} ({code}).",
            advice="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
        )
    return None


def denied(code: str, server: str, where: str) -> AccessError | None:
    """The error of a refusal if the keys may not do what they are used for.

    Args:
        code: As of ``wrong_clock``.
        server: The server.
        where: The object.
    """
    if code not in _DENIED:
        return None
    return AccessError(
        f"{server} denies these keys access to {where} ({code}).",
        cause="They are wrong, or they need s3:ListBucket on the bucket, and s3:GetObject and s3:PutObject below it.",
        advice="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and the bucket's policy.",
    )


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


def age_of(written: str, now: float) -> float:
    """The age of an object in seconds, from the time of its write as in a listing; not a number if it can't be read."""
    try:
        return now - datetime.fromisoformat(written.replace("Z", "+00:00")).timestamp()  # Python 3.10 knows no Z
    except ValueError:
        return math.nan
