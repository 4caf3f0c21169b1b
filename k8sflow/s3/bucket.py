"""The requests of an ``S3`` to one bucket, and what their failures mean to a user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from k8sflow.errors import (
    AccessError,
    BucketNotFoundError,
    ConfigurationError,
    K8sflowError,
    ObjectNotFoundError,
    OutageError,
    S3RangeError,
    StorageError,
    UnreachableError,
)
from k8sflow.s3.urls import Location
from k8sflow.s3_options import S3Options
from k8sflow.storage import s3_errors
from k8sflow.storage.objects import Buffer
from k8sflow.storage.patience import Patience, patient
from k8sflow.storage.s3_client import NoAnswerError, NoKeysError, Reading, RefusedError, S3Client
from k8sflow.storage.s3_http import plain_client

# Simultaneous requests of one call.
PARALLEL = 32
_NOT_FOUND = {"404", "NoSuchKey", "NotFound"}
_NO_SUCH_RANGE = {"416", "InvalidRange"}
_TAKEN = {"412", "PreconditionFailed"}
_UNDECIDED = {"409", "ConditionalRequestConflict"}
_BROKEN_OFF = {"NoSuchUpload", "RequestTimeout", "IncompleteBody"}
_OTHER_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "301"}
_TOO_LARGE = "MetadataTooLarge"
_SERVER_ERROR = 500


@dataclass(frozen=True)
class Found:
    """An object of a listing, or a prefix of some.

    Args:
        key: Its key.
        size: Its size in bytes; None for a prefix.
    """

    key: str
    size: int | None


class Bucket:
    """A bucket; calls wait while the server can't be reached.

    Args:
        name: The bucket.
        endpoint: URL of the server; None for AWS.
        region: Region of the bucket.
        patience: How long calls wait for the server.
        options: How requests are sent.
    """

    def __init__(
        self, name: str, endpoint: str | None, region: str | None, patience: Patience, options: S3Options
    ) -> None:
        self.name = name
        self._server = endpoint or "AWS S3"
        self.patience = patience
        self._client = _client(name, endpoint, region, options)
        self._is_known = False

    def read(self, key: str, span: str = "", etag: str = "") -> Reading:
        """As of ``S3Client``, to be used within ``translated``."""
        found = self._client.read(key, span, etag)
        self._is_known = True
        return found

    @patient
    def info(self, key: str) -> Mapping[str, str]:
        """The headers of an object.

        Raises:
            ObjectNotFoundError: There is no such object.
        """
        with self.translated(key):
            try:
                found = self._client.info(key)
            except RefusedError as error:
                if error.code in _NOT_FOUND and not self._is_known:
                    self._check()
                raise
        self._is_known = True
        return found

    @patient
    def write(self, key: str, body: Buffer, headers: Mapping[str, str], *, is_new: bool) -> bool:
        """Writes an object; False if it was to be new, and the key is taken."""
        with self.translated(key), _taken_by_others() as taken:
            self._client.write(key, body, is_new=is_new, headers=headers)
        return not taken

    @patient
    def begin_upload(self, key: str, headers: Mapping[str, str]) -> str:
        """As of ``S3Client``."""
        with self.translated(key):
            return self._client.begin_upload(key, headers)

    @patient
    def upload_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        """As of ``S3Client``."""
        with self.translated(key):
            return self._client.upload_part(key, upload, number, body)

    @patient
    def end_upload(self, key: str, upload: str, etags: Sequence[str], *, is_new: bool) -> bool:
        """Makes the parts of an upload an object; False if it was to be new, and the key is taken."""
        with self.translated(key), _taken_by_others() as taken:
            self._client.end_upload(key, upload, etags, is_new=is_new)
        return not taken

    def abandon_upload(self, key: str, upload: str) -> None:
        """Deletes the parts of an upload, if that can be done."""
        with contextlib.suppress(RefusedError, NoAnswerError, NoKeysError, ValueError, OSError):
            self._client.abandon_upload(key, upload)

    def listing(self, prefix: str, delimiter: str = "") -> list[Found]:
        """The objects below a prefix and, where there is a delimiter, the prefixes below it; sorted by key."""
        found: list[Found] = []
        token = ""
        while True:
            page, token = self._page(prefix, delimiter, token)
            found += page
            if not token:
                return sorted(found, key=lambda each: each.key)

    @patient
    def _page(self, prefix: str, delimiter: str, token: str) -> tuple[list[Found], str]:
        with self.translated(prefix):
            page = self._client.page(prefix, delimiter, token)
        objects = [Found(key, status.size) for key, status in zip(page.keys, page.statuses, strict=True)]
        return objects + [Found(key, None) for key in page.prefixes], page.next_token

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _check(self) -> None:
        """Raises RefusedError if there is no bucket: the answer to HEAD doesn't say what is missing."""
        try:
            self._client.page("", most=1)
        except RefusedError as error:
            if error.code == "NoSuchBucket":
                raise

    @contextlib.contextmanager
    def translated(self, key: str) -> Iterator[None]:
        """Translates the client's errors into k8sflow's."""
        url = Location(self.name, key).url
        try:
            yield
        except NoKeysError as error:
            raise AccessError(
                f"there are no keys for {url} at {self._server}: {error}.",
                advice="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            ) from error
        except RefusedError as error:
            raise self._error_of(error, url) from error
        except NoAnswerError as error:
            kind = UnreachableError if error.is_unreachable else OutageError
            raise kind(
                f"{self._server} can't be reached for {url}: {error}.",
                cause="The server is down, or the endpoint is wrong.",
                advice="Check the setting endpoint (K8SFLOW_ENDPOINT), or S3(endpoint=…).",
            ) from error
        except ValueError as error:  # boto3's, as for a key that it can't send
            raise StorageError(f"{url} at {self._server}: {error}") from error

    def _error_of(self, error: RefusedError, url: str) -> K8sflowError:
        code = error.code
        if code == "NoSuchBucket":
            return BucketNotFoundError(
                f"there is no bucket {self.name!r} at {self._server}, for {url}.",
                advice="Create it, or correct the URL; the setting endpoint (K8SFLOW_ENDPOINT) names another server.",
            )
        if code in _NOT_FOUND:
            return ObjectNotFoundError(
                f"there is no {url}.", advice="Set return_missing=True to get it as an object that does not exist."
            )
        if code in _NO_SUCH_RANGE:
            return S3RangeError(f"{url} has none of the bytes of the range.", advice="S3.info(key).size is its size.")
        if code in s3_errors.EXPIRED and self._client.renew():
            return OutageError(f"{self._server} didn't accept the keys for {url}, which had expired ({code}).")
        return self._refusal(error, url)

    def _refusal(self, error: RefusedError, url: str) -> K8sflowError:
        code = error.code
        found: AccessError | ConfigurationError | None
        for found in (
            s3_errors.refused_keys(code, self._server, url),
            s3_errors.wrong_clock(code, error.date, f"{self._server} refuses {url}"),
            s3_errors.denied(code, self._server, url),
        ):
            if found is not None:
                return found
        is_outage = error.status >= _SERVER_ERROR or code in _BROKEN_OFF | _UNDECIDED
        advice = "Set the region of the bucket: K8SFLOW_REGION, or S3(region=…)." if code in _OTHER_REGION else ""
        if code == _TOO_LARGE:
            advice = "S3 keeps 2 kB of metadata for an object: store more than that in an object of its own."
        return (OutageError if is_outage else StorageError)(f"{self._server} refused {url}: {error}", advice=advice)


@contextlib.contextmanager
def _taken_by_others() -> Iterator[list[str]]:
    """Has an entry if the key of a new object is taken."""
    taken: list[str] = []
    try:
        yield taken
    except RefusedError as error:
        if error.code not in _TAKEN:
            raise
        taken.append(error.code)


def _client(bucket: str, endpoint: str | None, region: str | None, options: S3Options) -> S3Client:
    """The client for a bucket: the simplest that can do it."""
    if client := plain_client(bucket, endpoint, region, PARALLEL, os.environ, options):
        return client
    from k8sflow.storage.s3_boto import BotoClient  # noqa: PLC0415  boto3 is loaded where it is needed

    return BotoClient(bucket, endpoint, region, PARALLEL, options)
