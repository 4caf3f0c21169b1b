"""Access tokens for Google Cloud, from where Google's own tools find them.

https://cloud.google.com/docs/authentication/application-default-credentials has the order. A pod gets its tokens from
the metadata server or with the key of a service account, and a person's come from ``gcloud auth application-default
login``: all need nothing but the standard library. Other kinds of credentials need the package google-auth.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timezone
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from k8sflow.access_tokens import Token
from k8sflow.errors import AccessError, OutageError
from k8sflow.http_dates import seconds_ahead
from k8sflow.rsa_signature import RsaKey

_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
STORAGE = "https://www.googleapis.com/auth/devstorage.read_write"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
_TOKENS = "https://oauth2.googleapis.com/token"
_METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
# The metadata server is on this machine, or nowhere.
_METADATA_SECONDS = 5
_SECONDS = 30
_ASSERTED_SECONDS = 3600
_TOLERATED_SKEW_SECONDS = 60
_ADVICE = (
    f"Run `gcloud auth application-default login`, or name a file with credentials in {_FILE}; in pods, bind the "
    "service account to one of Google's (workload identity)."
)


def find(environment: Mapping[str, str], scope: str = STORAGE) -> Callable[[], Token]:
    """Finds the function that makes tokens for this process.

    Args:
        environment: The environment.
        scope: What the tokens of a service account's key are for; other credentials have their own scopes.

    Raises:
        AccessError: The file with credentials is missing or can't be read.
    """
    if (path := environment.get(_FILE, "")) and not Path(path).is_file():
        raise AccessError(f"{_FILE} is {path!r}, and there is no such file.", advice=_ADVICE)
    folder = environment.get("CLOUDSDK_CONFIG") or Path(environment.get("HOME") or "/", ".config", "gcloud")
    found = Path(path) if path else Path(folder, "application_default_credentials.json")
    if not found.is_file():
        host = environment.get("GCE_METADATA_HOST") or "metadata.google.internal"
        return _Machine(host).token
    try:
        document = json.loads(found.read_text(encoding="utf-8"))
        kind = document["type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AccessError(f"{found} has no credentials of Google: {error}.", advice=_ADVICE) from error
    if kind == "authorized_user":
        return lambda: _of_person(document, found)
    if kind == "service_account":
        return _ServiceAccount(document, found, scope).token
    return _by_package(found, kind, scope)


class _Machine:
    """The service account of the machine or the pod.

    Args:
        host: The metadata server, which may not exist until it has answered once.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._has_answered = False

    def token(self) -> Token:
        """A new token.

        Raises:
            AccessError: There is no metadata server, or it has no credentials.
            OutageError: It has answered before, and can't be reached now.
        """
        request = urllib.request.Request(f"http://{self._host}{_METADATA_PATH}", headers={"Metadata-Flavor": "Google"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=_METADATA_SECONDS) as answer:
                found = _token(answer.read())
        except (OSError, ValueError, KeyError) as error:
            if self._has_answered and _is_outage(error):
                raise OutageError(f"the metadata server {self._host} gives no token: {error}.") from error
            raise AccessError(
                f"there are no credentials for Google Cloud: there is no file with some, and the metadata "
                f"server {self._host} has none ({error}).",
                advice=_ADVICE,
            ) from error
        self._has_answered = True
        return found


def _is_outage(error: Exception) -> bool:
    """True if a server can't be reached or can't cope, so that a later request may succeed."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.TOO_MANY_REQUESTS
    return isinstance(error, OSError)


class _ServiceAccount:
    """A service account whose key is in a file (https://developers.google.com/identity/protocols/oauth2/service-account).

    Args:
        document: The content of the file.
        file: The file.
        scope: What its tokens are for.

    Raises:
        AccessError: It lacks something, or its key can't be read.
    """

    def __init__(self, document: Mapping[str, Any], file: Path, scope: str) -> None:
        self._file, self._scope = file, scope
        self._server = str(document.get("token_uri") or _TOKENS)
        self._ahead = 0.0  # seconds by which the server's clock is ahead of this machine's, once it has refused that
        try:
            self._email, self._key = str(document["client_email"]), RsaKey.of_pem(document["private_key"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise AccessError(
                f"{file} can't be used as the key of a service account: {why}.", advice=_ADVICE
            ) from error
        self._header = {"alg": "RS256", "typ": "JWT", "kid": document.get("private_key_id")}

    def token(self) -> Token:
        """A new token.

        Raises:
            AccessError: Google refuses the key.
            OutageError: Google's server can't be reached.
        """
        try:
            return _asked(self._server, self._fields(), self._file, self._ahead)
        except _WrongClockError as error:
            self._ahead = error.seconds_ahead
        return _asked(self._server, self._fields(), self._file, self._ahead)

    def _fields(self) -> dict[str, str]:
        now = int(time.time() + self._ahead)
        claims = {
            "iss": self._email,
            "scope": self._scope,
            "aud": self._server,
            "iat": now,
            "exp": now + _ASSERTED_SECONDS,
        }
        text = b".".join(_encoded(json.dumps(part).encode()) for part in (self._header, claims))
        assertion = b".".join((text, _encoded(self._key.signature(text))))
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion.decode()}


class _WrongClockError(AccessError):
    """The server refuses what was signed, and its clock differs from this machine's."""

    seconds_ahead = 0.0


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _of_person(document: Mapping[str, Any], file: Path) -> Token:
    """A token for the user who is logged in with gcloud."""
    try:
        fields = {name: document[name] for name in ("client_id", "client_secret", "refresh_token")}
    except KeyError as error:
        raise AccessError(f"the credentials in {file} give no token: {error}.", advice=_ADVICE) from error
    token = _asked(str(document.get("token_uri") or _TOKENS), {"grant_type": "refresh_token", **fields}, file)
    return replace(token, quota_project=document.get("quota_project_id") or "")


def _asked(server: str, fields: Mapping[str, str], file: Path, ahead: float | None = None) -> Token:
    """Asks Google's server of tokens for one.

    Args:
        server: Its URL.
        fields: The request's.
        file: The file with the credentials.
        ahead: What was added to this machine's time to sign the request, in seconds; None if no time was signed.
    """
    try:
        request = urllib.request.Request(server, data=urlencode(fields).encode())  # noqa: S310  the file is the user's
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            return _token(answer.read())
    except (OSError, ValueError, KeyError) as error:
        if _is_outage(error):
            raise OutageError(f"Google's server of tokens can't be reached for {file}: {error}.") from error
        if not isinstance(error, urllib.error.HTTPError):
            raise AccessError(f"the credentials in {file} give no token: {error}.", advice=_ADVICE) from error
        said = error.read().decode("utf-8", "replace")[:300]
        found = seconds_ahead(error.headers.get("Date") or "")
        is_of_clock = ahead is not None and abs(found - ahead) > _TOLERATED_SKEW_SECONDS
        refusal = (_WrongClockError if is_of_clock else AccessError)(
            f"Google refuses the credentials in {file}: {said}",
            cause="They were revoked, or have expired.",
            advice=_ADVICE,
        )
        if isinstance(refusal, _WrongClockError):
            refusal.seconds_ahead = found
        raise refusal from error


def _token(answer: bytes) -> Token:
    document = json.loads(answer)
    return Token(document["access_token"], time.time() + float(document["expires_in"]))


def _by_package(file: Path, kind: str, scope: str) -> Callable[[], Token]:
    """Returns a function that makes tokens by google-auth, for identities of other clouds.

    Raises:
        AccessError: The package is missing, or the file can't be used.
    """
    try:
        import google.auth  # noqa: PLC0415  optional
        from google.auth.exceptions import GoogleAuthError, TransportError  # noqa: PLC0415
        from google.auth.transport.urllib3 import Request  # noqa: PLC0415
        from urllib3 import PoolManager  # noqa: PLC0415
    except ImportError as error:
        raise AccessError(
            f"{file} has credentials of the type {kind}, which need the package google-auth: {error}.",
            advice="Install it: pip install 'k8sflow[gcs]'. For pods, add it to the image, or use workload identity.",
        ) from error
    try:
        credentials, _ = google.auth.load_credentials_from_file(str(file), scopes=[scope])
    except GoogleAuthError as error:
        raise AccessError(f"{file} can't be used: {error}", advice=_ADVICE) from error

    def make() -> Token:
        try:
            credentials.refresh(Request(PoolManager()))
        except TransportError as error:
            raise OutageError(f"Google's server of tokens can't be reached for {file}: {error}.") from error
        except GoogleAuthError as error:
            raise AccessError(f"Google gives no token for {file}: {error}", advice=_ADVICE) from error
        return Token(credentials.token, credentials.expiry.replace(tzinfo=timezone.utc).timestamp())

    return make
