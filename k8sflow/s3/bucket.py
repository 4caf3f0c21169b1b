"""The requests of an ``S3`` to one bucket, and what their failures mean to a user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from k8sflow.s3.urls import Location
from k8sflow.s3_options import S3Options
from k8sflow.storage.objects import Buffer
from k8sflow.storage.patience import Patience, patient
from k8sflow.storage.s3_client import NoAnswerError, NoKeysError, Reading, RefusedError, S3Client
from k8sflow.storage.s3_http import plain_client
from k8sflow.storage.s3_translation import NOT_FOUND, TAKEN, Hints, Translation

# Simultaneous requests of one call.
PARALLEL = 32
_HINTS = Hints(
    endpoint="Check the setting endpoint (K8SFLOW_ENDPOINT), or S3(endpoint=…).",
    bucket="Create it, or correct the URL; the setting endpoint (K8SFLOW_ENDPOINT) names another server.",
    region="Set the region of the bucket: K8SFLOW_REGION, or S3(region=…).",
    missing="Set return_missing=True to get it as an object that does not exist.",
)


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
        self._translation = Translation(name, endpoint, _HINTS)
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
                if error.code in NOT_FOUND and not self._is_known:
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
            return self._client.upload_part(key, upload, number, [body])

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

    def translated(self, key: str) -> AbstractContextManager[None]:
        """Translates the client's errors into k8sflow's."""
        return self._translation.of(self._client, Location(self.name, key).url)


@contextlib.contextmanager
def _taken_by_others() -> Iterator[list[str]]:
    """Has an entry if the key of a new object is taken."""
    taken: list[str] = []
    try:
        yield taken
    except RefusedError as error:
        if error.code not in TAKEN:
            raise
        taken.append(error.code)


def _client(bucket: str, endpoint: str | None, region: str | None, options: S3Options) -> S3Client:
    """The client for a bucket: the simplest that can do it."""
    if client := plain_client(bucket, endpoint, region, PARALLEL, os.environ, options):
        return client
    from k8sflow.storage.s3_boto import BotoClient  # noqa: PLC0415  boto3 is loaded where it is needed

    return BotoClient(bucket, endpoint, region, PARALLEL, options)
