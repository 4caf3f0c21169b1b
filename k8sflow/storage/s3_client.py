"""The requests that a store sends to a bucket, and how they fail; there are two clients.

``s3_http`` needs nothing but the standard library and is ready in a few milliseconds. boto3 takes a quarter of a second
of CPU time to import and set up, in every pod; ``s3_boto`` serves what ``s3_http`` leaves to it: AWS itself with its
regions and partitions, keys that aren't in the environment, profiles and proxies.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from k8sflow.storage.objects import Buffer

PART_BYTES = 16 << 20
PARALLEL_PARTS = 8
CONNECT_SECONDS = 3  # three attempts: an unreachable server is to be reported after some ten seconds
READ_SECONDS = 60
# How long each try of a request waits for the first byte of its answer. A connection may lead nowhere: something on the
# way accepts it, while the server is restarting. A new one soon does better, and a slow server has longer at the end.
ANSWER_SECONDS = (10, 20, READ_SECONDS)
TRIES = len(ANSWER_SECONDS)
# versitygw's error for a key that another process has deleted at the same time; S3 has none.
DELETED_BEFORE = "NoSuchKey"
NO_HEADERS: Mapping[str, str] = {}
# Besides the user's metadata, the headers that an object can be written with.
CONTENT_TYPE, ENCRYPTION, METADATA = "content-type", "x-amz-server-side-encryption", "x-amz-meta-"


class RefusedError(Exception):
    """The server has answered with an error.

    Args:
        code: S3's error code; the HTTP status where the answer has none.
        status: The HTTP status.
        message: The server's message.
        date: The server's time, as in the header ``Date``.
    """

    def __init__(self, code: str, status: int, message: str, date: str = "") -> None:
        super().__init__(f"{message} ({code})" if message else code)
        self.code = code
        self.status = status
        self.date = date


class NoAnswerError(Exception):
    """The server can't be reached, or the connection broke.

    Args:
        reason: The system's reason.
        is_unreachable: True if there was no connection at all.
    """

    def __init__(self, reason: str, *, is_unreachable: bool = False) -> None:
        super().__init__(reason)
        self.is_unreachable = is_unreachable


class NoKeysError(Exception):
    """There are no keys to sign the request with."""


class Reading(Protocol):
    """The answer to a read whose bytes are still to be received.

    Args:
        size: The number of bytes.
        etag: The version of the object.
    """

    @property
    def size(self) -> int:
        """The number of bytes."""

    @property
    def etag(self) -> str:
        """The version of the object."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the answer; the names are in lower case."""

    def read_into(self, target: memoryview) -> None:
        """Receives all of them.

        Raises:
            NoAnswerError: The connection broke.
        """

    def pieces(self) -> Generator[memoryview, None, None]:
        """Receives all of them, in pieces that are valid until the next one.

        Raises:
            NoAnswerError: The connection broke.
        """

    def close(self) -> None:
        """Gives up what was not received."""


@dataclass(frozen=True)
class Status:
    """The properties of an object.

    Args:
        size: The number of bytes.
        age: The seconds since it was last written, by the server's clock; not a number if the server doesn't tell.
    """

    size: int
    age: float


@dataclass(frozen=True)
class Upload:
    """An upload in parts that was not ended.

    Args:
        key: The key of its object.
        name: Its id.
        age: The seconds since it was started, by the server's clock.
    """

    key: str
    name: str
    age: float


@dataclass(frozen=True)
class Page:
    """A page of a listing.

    Args:
        keys: Keys of objects.
        prefixes: Common prefixes, where a delimiter was given.
        next_token: What the request for the next page needs; empty on the last one.
        statuses: The properties of the objects, in the order of their keys.
    """

    keys: Sequence[str]
    prefixes: Sequence[str]
    next_token: str
    statuses: Sequence[Status] = ()


class StoreClient(Protocol):
    """The requests of a store to one bucket.

    All raise RefusedError, NoAnswerError and NoKeysError, after a few tries where another one may help.
    """

    def read(self, key: str, span: str = "", etag: str = "") -> Reading:
        """Asks for an object.

        Args:
            key: Its key.
            span: A range as in the header ``Range``; empty for the whole object.
            etag: The version that it must have; empty for any.
        """

    def write(self, key: str, body: Buffer, *, is_new: bool = False) -> None:
        """Writes an object.

        Args:
            key: Its key.
            body: Its bytes.
            is_new: Whether it is only written if the key is not taken (``If-None-Match: *``).
        """

    def begin_upload(self, key: str) -> str:
        """Begins to write an object in parts; the upload's id."""

    def upload_part(self, key: str, upload: str, number: int, body: Sequence[Buffer]) -> str:
        """Writes a part of an upload, in pieces, numbered from 1; its ETag, which the upload's end needs."""

    def end_upload(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Makes the parts of an upload an object."""

    def abandon_upload(self, key: str, upload: str) -> None:
        """Deletes the parts of an upload."""

    def uploads(self, prefix: str, token: str = "") -> tuple[Sequence[Upload], str | None]:
        """Uploads below a prefix that were not ended; the token of the request for the next ones, or None."""

    def upload_size(self, key: str, upload: str) -> int:
        """The number of bytes that the parts of an upload have."""

    def size(self, key: str) -> int:
        """The size of an object."""

    def status(self, key: str) -> Status:
        """The properties of an object."""

    def delete(self, keys: Sequence[str]) -> str:
        """Deletes objects, at most 1000; the error code of the first that could not be deleted, or an empty string."""

    def page(self, prefix: str, delimiter: str = "", token: str = "", most: int = 1000) -> Page:
        """A page of the objects below a prefix."""

    def renew(self) -> bool:
        """Reads the keys again, which have expired; True if there are others now."""

    def close(self) -> None:
        """Closes the connections."""


class S3Client(StoreClient, Protocol):
    """The requests to a bucket of S3, those of users included."""

    def write(self, key: str, body: Buffer, *, is_new: bool = False, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """As of a store, with ``headers``: ``CONTENT_TYPE``, ``ENCRYPTION`` and names that begin with ``METADATA``."""

    def begin_upload(self, key: str, headers: Mapping[str, str] = NO_HEADERS) -> str:
        """As of a store, with ``headers`` as for ``write``."""

    def end_upload(self, key: str, upload: str, etags: Sequence[str], *, is_new: bool = False) -> None:
        """As of a store, with ``is_new`` as for ``write``."""

    def info(self, key: str) -> Mapping[str, str]:
        """The headers of an object (``HEAD``); the names are in lower case."""
