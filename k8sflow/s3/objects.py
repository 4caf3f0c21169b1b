"""The values that ``S3`` takes and returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from k8sflow.errors import S3ClosedError
from k8sflow.storage.s3_client import CONTENT_TYPE, ENCRYPTION, METADATA

# Metaflow's header, so that either reads what the other has written; S3's own metadata is lower-case ASCII.
_ATTRIBUTES = f"{METADATA}metaflow-user-attributes"


class S3GetObject(NamedTuple):
    """A range of an object's bytes.

    Args:
        key: The object, as for ``S3.get``.
        offset: The first byte, from 0; a negative number counts from the end of the object.
        length: The number of bytes; None or a negative number for all up to the end.
    """

    key: str
    offset: int | None = None
    length: int | None = None


class S3PutObject(NamedTuple):
    """An object to write.

    Args:
        key: The object, as for ``S3.put``.
        value: Its content, for ``S3.put_many``.
        path: The file with its content, for ``S3.put_files``.
        content_type: Its MIME type.
        encryption: Its server-side encryption, such as ``AES256`` or ``aws:kms``; None for that of the ``S3``.
        metadata: A dictionary of values that JSON can hold.
    """

    key: str
    value: Any = None
    path: str | None = None
    content_type: str | None = None
    encryption: str | None = None
    metadata: Mapping[str, Any] | None = None


class RangeInfo(NamedTuple):
    """The part of an object that was downloaded.

    Args:
        total_size: The object's size in S3, in bytes.
        request_offset: The first downloaded byte.
        request_length: The number of downloaded bytes.
    """

    total_size: int
    request_offset: int = 0
    request_length: int | None = None


class S3Object:
    """An object in S3 or a prefix of some, perhaps with a copy in a temporary file.

    Args:
        url: Its URL.
        prefix: The URL to which its key is relative; None where the key is the URL.
        path: The file with the copy.
        size: The copy's or the object's size in bytes; None where there is no such object.
        headers: The headers of S3's answer; None where they were not asked for.
        range_info: The part that was downloaded.
        folder: What deletes the copy when nothing refers to it any more.
    """

    def __init__(
        self,
        url: str,
        prefix: str | None = None,
        path: str | None = None,
        size: int | None = None,
        headers: Mapping[str, str] | None = None,
        range_info: RangeInfo | None = None,
        folder: object = None,
    ) -> None:
        self._folder = folder
        self._url = url
        self._prefix = None if prefix == url else prefix
        self._path = path
        self._size = size
        self._range_info = range_info
        self._has_info = headers is not None
        found = headers or {}
        self._content_type = found.get(CONTENT_TYPE)
        self._encryption = found.get(ENCRYPTION)
        self._metadata = _metadata(found)
        date = found.get("last-modified")
        self._last_modified = int(parsedate_to_datetime(date).timestamp()) if date else None

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the path of the copy, which its own process deletes."""
        return {**vars(self), "_folder": None}

    @property
    def exists(self) -> bool:
        """True if there is such an object; False for a missing one, and for a prefix in a listing."""
        return self._size is not None

    @property
    def downloaded(self) -> bool:
        """True if there is a copy in a temporary file."""
        return self._path is not None

    @property
    def url(self) -> str:
        """The object's URL."""
        return self._url

    @property
    def prefix(self) -> str | None:
        """The URL to which the key is relative: the ``S3``'s or the listed one; None where the key is a URL."""
        return self._prefix

    @property
    def key(self) -> str:
        """The key as it was asked for; in a listing, relative to the listed URL; the URL where there is none."""
        if self._prefix is None:
            return self._url
        return self._url.removeprefix(self._prefix).strip("/")

    @property
    def path(self) -> str | None:
        """The temporary file with the bytes, which is deleted with the ``with`` block; None if it wasn't downloaded.

        Raises:
            S3ClosedError: The file was deleted.
        """
        if self._path is not None and not Path(self._path).exists():
            raise S3ClosedError(
                f"the local copy of {self._url} was deleted.",
                cause="It is kept until the `with S3(…)` block that has downloaded it ends.",
                advice="Use it inside of the block, or keep its bytes: data = s3.get(key).blob",
            )
        return self._path

    @property
    def blob(self) -> bytes | None:
        """The bytes; None if it wasn't downloaded.

        Raises:
            S3ClosedError: The file was deleted.
        """
        return None if (path := self.path) is None else Path(path).read_bytes()

    @property
    def text(self) -> str | None:
        """The bytes as UTF-8, with replacements for what is none; None if it wasn't downloaded.

        Raises:
            S3ClosedError: The file was deleted.
        """
        return None if (found := self.blob) is None else found.decode("utf-8", "replace")

    @property
    def size(self) -> int | None:
        """The number of downloaded bytes, or else the object's size in bytes; None if there is no such object."""
        return self._size

    @property
    def has_info(self) -> bool:
        """True if the metadata, content type and so on are known."""
        return self._has_info

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The user's metadata; None if it has none, or they were not asked for."""
        return self._metadata

    @property
    def content_type(self) -> str | None:
        """The MIME type; None if it has none, or it was not asked for."""
        return self._content_type

    @property
    def encryption(self) -> str | None:
        """The server-side encryption; None if it has none, or it was not asked for."""
        return self._encryption

    @property
    def range_info(self) -> RangeInfo | None:
        """The part that was downloaded; None if nothing was, or it was not asked for."""
        return self._range_info

    @property
    def last_modified(self) -> int | None:
        """When it was written, in seconds since the epoch; None if that was not asked for."""
        return self._last_modified

    def __repr__(self) -> str:
        if self._size is None:
            return f"<S3Object {self._url} (object does not exist)>"
        return f"<S3Object {self._url} ({self._size} bytes, {'local' if self._path else 'in S3'})>"

    __str__ = __repr__


def headers_of(content_type: str | None, metadata: Mapping[str, Any] | None, encryption: str | None) -> dict[str, str]:
    """The headers of an object that is to be written.

    Raises:
        TypeError: JSON can't hold the metadata.
    """
    headers = {CONTENT_TYPE: content_type, ENCRYPTION: encryption}
    headers[_ATTRIBUTES] = json.dumps(dict(metadata)) if metadata else None
    return {name: value for name, value in headers.items() if value}


def _metadata(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """Those that ``S3.put`` has written, and those of other programs."""
    plain = {
        name.removeprefix(METADATA): value
        for name, value in headers.items()
        if name.startswith(METADATA) and name != _ATTRIBUTES
    }
    found: Any = {}
    if text := headers.get(_ATTRIBUTES):
        try:
            found = json.loads(text)
        except ValueError:  # another program's, with Metaflow's name
            found = {"metaflow-user-attributes": text}
    return {**plain, **(found if isinstance(found, dict) else {})} or None
