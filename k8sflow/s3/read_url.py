"""The content of a URL, for values of runs: an object in S3, or a document of a web server."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from http import HTTPStatus

from k8sflow.errors import AccessError, ObjectNotFoundError, OutageError, StorageError, UnreachableError
from k8sflow.s3.client import S3
from k8sflow.storage.s3_client import READ_SECONDS
from k8sflow.storage.s3_connections import reason_of

_DENIED = {401, 403}
_MISSING = {404, 410}


def read_url(url: str) -> bytes:
    """The content of a URL.

    Args:
        url: ``s3://bucket/key``, with the server and keys of the settings, or the ``https://`` or ``http://`` of a
            document that needs no login, through the proxy of the environment.

    Raises:
        ObjectNotFoundError: There is none.
        AccessError: It may not be read.
        OutageError: The server can't be reached, or has a failure.
        StorageError: It can't be read for another reason.
    """
    return _of_s3(url) if url.startswith("s3://") else _of_web(url)


def _of_s3(url: str) -> bytes:
    with S3() as s3:
        content = s3.get(url, return_missing=True, return_info=False).blob
    if content is None:
        raise ObjectNotFoundError(f"there is no {url}.")
    return content


def _of_web(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=READ_SECONDS) as answer:  # noqa: S310  the caller has checked the scheme
            found: bytes = answer.read()
            return found
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error) from error
    except urllib.error.URLError as error:
        reason = reason_of(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
        raise UnreachableError(f"the server of {url} can't be reached: {reason}.") from error
    except (ValueError, http.client.InvalidURL) as error:  # as for a URL without a server, or with a space
        raise StorageError(f"{url} is not a URL: {error}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise OutageError(f"the server of {url} has broken off: {reason_of(error)}.") from error


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    answer = f"{error.code} {error.reason}"
    if error.code in _MISSING:
        return ObjectNotFoundError(f"there is no {url} ({answer}).")
    if error.code in _DENIED:
        return AccessError(
            f"the server doesn't allow {url} to be read ({answer}).", cause="k8sflow reads URLs without a login."
        )
    kind = OutageError if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR else StorageError
    return kind(f"the server refused {url} ({answer}).")
