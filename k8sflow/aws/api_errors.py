"""Errors of AWS, as messages that say what to do."""

from __future__ import annotations

from k8sflow.errors import BatchError, LoginEndedError
from k8sflow.flow.problems import did_you_mean

PAGE = "docs/batch.md"
# https://docs.aws.amazon.com/batch/latest/APIReference/CommonErrors.html
_THROTTLED = {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "SlowDown"}
_THROTTLED |= {"RequestLimitExceeded", "RequestThrottled", "RequestThrottledException"}
_UNAVAILABLE = {"ServerException", "InternalFailure", "InternalError", "ServiceUnavailable", "RequestTimeout"}
_KEYS = {"UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "IncompleteSignature"}
_KEYS |= {"InvalidSignatureException", "MissingAuthenticationToken", "NotAuthorized", "InvalidAccessKeyId"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_NO_CREDENTIALS = "NoCredentials"
_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_SERVER_ERROR = 500


def is_throttled(code: str) -> bool:
    """True if AWS has not looked at the request, because there were too many."""
    return code in _THROTTLED


def is_passing(code: str, status: int) -> bool:
    """True if the same request may succeed later."""
    return code in _THROTTLED or code in _UNAVAILABLE or status >= _SERVER_ERROR


def refused(operation: str, code: str, message: str, region: str) -> BatchError:
    """The error for an answer of AWS that will stay the same.

    Args:
        operation: The operation of the API.
        code: AWS's code of the error.
        message: AWS's message.
        region: The region.
    """
    summary, advice = f"AWS Batch in {region} refused {operation} ({code}).", ""
    if code in _KEYS:
        summary = f"AWS doesn't accept the credentials ({code})."
        advice = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; `aws sts get-caller-identity`."
    elif code in _EXPIRED:
        summary, advice = f"the credentials of AWS have expired ({code}).", "Log in again, for example `aws sso login`."
    elif code in _FORBIDDEN:
        summary = f"this user may not call {operation} of AWS Batch in {region}."
        advice = f"Allow it; {PAGE} has the whole policy."
        if "iam:PassRole" in message:
            summary = "this user may not pass the job's role to AWS Batch."
            advice = f"Allow iam:PassRole for iam_role and execution_role; {PAGE} has the whole policy."
    return BatchError(summary, cause=message, advice=advice, code=code)


def is_final(error: BatchError) -> bool:
    """True if the request will be refused as long as nobody repairs something: a login can be renewed in the meantime.

    The error of an outage that outlasted the patience has no code, or one that passes.
    """
    code = error.code
    return bool(code) and not is_login(error) and not is_passing(code, int(code) if code.isdigit() else 0)


def is_login(error: BatchError) -> bool:
    """True if a person has to log in again."""
    return error.code in _EXPIRED or error.code == _NO_CREDENTIALS


def login_ended(error: BatchError) -> LoginEndedError:
    """The error for a login that ended in the middle of a run, and wasn't renewed."""
    return LoginEndedError(
        "the login to AWS has ended. Jobs that run keep running.",
        cause=f"{error.summary} {error.cause}".strip(),
        advice="Log in again, for example `aws sso login`, and continue with `attach`.",
        code=error.code,
    )


def no_credentials(reason: str) -> BatchError:
    """The error for a machine without credentials, or with a login that has ended."""
    return BatchError(
        "there are no credentials for AWS.",
        cause=reason,
        advice="Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in: `aws configure sso`, "
        "`aws sso login`.",
        code=_NO_CREDENTIALS,
    )


def no_client(reason: str) -> BatchError:
    """The error for settings of AWS on this machine with which no request can be made."""
    return BatchError(
        "the settings of AWS on this machine can't be used.",
        cause=reason,
        advice="Check AWS_PROFILE and ~/.aws/config (`aws configure list-profiles`), and batch_region.",
    )


def unreachable(operation: str, endpoint: str, reason: str, region: str, regions: list[str]) -> BatchError:
    """The error for no answer; a region that doesn't exist has no server."""
    if region not in regions and regions:
        return BatchError(
            f"AWS Batch has no region {region!r}.",
            cause=reason,
            advice=f"{did_you_mean(region, regions)} Set batch_region (K8SFLOW_BATCH_REGION), or region.".strip(),
        )
    return BatchError(
        f"AWS Batch can't be reached at {endpoint}: {operation} had no answer.",
        cause=reason,
        advice="Check the network and the region (batch_region), and try again.",
    )
