"""The objects that URLs and keys mean."""

from __future__ import annotations

import re
from typing import NamedTuple

from k8sflow.errors import S3UrlError

_SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Location(NamedTuple):
    """An object, or a prefix of some.

    Args:
        bucket: The bucket.
        key: The key within it; empty for the whole bucket.
    """

    bucket: str
    key: str

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return f"{_SCHEME}{self.bucket}/{self.key}" if self.key else f"{_SCHEME}{self.bucket}"


def parsed(url: str) -> Location:
    """The location of a URL; characters such as ``?`` and ``#`` are part of the key.

    Raises:
        S3UrlError: It isn't the URL of a bucket, or of something in one.
    """
    if not url.startswith(_SCHEME):
        raise S3UrlError(f"{url!r} is not a URL of S3.", advice="It is written as s3://bucket/key.")
    bucket, _, key = url.removeprefix(_SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise S3UrlError(
            f"{url!r} has no valid bucket: {bucket!r}." if bucket else f"{url!r} has no bucket.",
            advice="It is written as s3://bucket/key.",
        )
    try:
        url.encode()
    except UnicodeEncodeError as error:
        raise S3UrlError(f"{url!a} is not a text that UTF-8 can hold: {error.reason}.") from error
    return Location(bucket, key)


def written(root: str | None, key: object) -> Location:
    """The object that a key means, as ``located``, for a call that writes it.

    Raises:
        S3UrlError: It means none, or not the same one for all servers.
    """
    found = located(root, key)
    if {".", ".."} & set(found.key.split("/")):
        raise S3UrlError(
            f"{found.url} has a part '.' or '..', which is a part of the name for some servers, and a way for others.",
            advice="Write the key without it.",
        )
    if "\0" in found.key:
        raise S3UrlError(f"{found.url!r} has a NUL character, which no server accepts.")
    return found


def located(root: str | None, key: object) -> Location:
    """The object that a key means.

    Args:
        root: The URL that the ``S3`` was made with; None for none.
        key: A key below the root, or a URL if there is none; None for the root itself.

    Raises:
        S3UrlError: It means none.
    """
    found = listed(root, key)
    if not found.key or (key is not None and not str(key).strip("/")):
        raise S3UrlError(f"{key!r} is not the key of an object." if found.url == root else f"{found.url} is a bucket.")
    return found


def listed(root: str | None, key: object) -> Location:
    """The prefix that a key means, as ``located``; it may be a whole bucket.

    Raises:
        S3UrlError: It means none.
    """
    if key is None:
        if root is None:
            raise S3UrlError(
                "a call without a key needs an S3 that was made with a URL.",
                advice="Write S3(s3root=…) or S3(run=self), or give the URL of the object.",
            )
        return parsed(root)
    if not isinstance(key, str):
        raise S3UrlError(f"a key is a text, and this is {type(key).__name__}: {key!r:.100}.")
    if root is None:
        if not key.startswith(_SCHEME):
            raise S3UrlError(
                f"{key!r} is not a URL, and this S3 was made without one to which a key is relative.",
                advice="Write s3://bucket/key, or make it with S3(s3root=…) or S3(run=self).",
            )
        return parsed(key)
    if key.startswith(_SCHEME):
        raise S3UrlError(
            f"{key!r} is a URL, but the keys of this S3 are relative to {root}.",
            advice="Give the part of the URL after that, or use S3() for URLs.",
        )
    return parsed(f"{root}/{key.lstrip('/')}" if key.strip("/") else root)
