"""``S3``: reads and writes objects in any bucket."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

from k8sflow.errors import ObjectNotFoundError, S3Error
from k8sflow.s3 import upload, urls
from k8sflow.s3.bucket import Found
from k8sflow.s3.download import Download, Downloaded, span_of
from k8sflow.s3.objects import S3GetObject, S3Object, S3PutObject, headers_of
from k8sflow.s3.run_data import root_of
from k8sflow.s3.session import Session
from k8sflow.s3.urls import Location

_Item = TypeVar("_Item")


class S3:
    """Reads and writes objects in any bucket of S3, or of a server with its API.

    Calls for many objects are parallel. Use it in a ``with`` block, at whose end its temporary files are deleted, or
    call ``close``. Threads may share it, and so may the workers of ``parallel_map``.

    Args:
        tmproot: The folder for its temporary files; None for ``current.tempdir``, and outside of a task for Python's.
        bucket: With ``run``, the bucket to use instead of the store's.
        prefix: With ``run``, the prefix in the bucket to use instead of the store's.
        run: ``self`` in a step, or a ``Run``: keys are relative to the data of this run.
        s3root: The URL to which keys are relative: ``s3://bucket/prefix``. Without it and ``run``, keys are URLs.
        encryption: Server-side encryption of what is written, such as ``AES256`` or ``aws:kms``.
        endpoint: URL of the server; None for the setting ``endpoint``, empty for AWS.
        region: Region of the buckets; None for the setting ``region``.

    Raises:
        S3Error: Arguments can't be combined, or it isn't known which run is meant.
        S3UrlError: ``s3root`` is not a URL of S3.
        ConfigurationError: ``run`` is given, and no bucket is set.
    """

    def __init__(
        self,
        tmproot: str | os.PathLike[str] | None = None,
        bucket: str | None = None,
        prefix: str | None = None,
        run: Any = None,
        s3root: str | None = None,
        encryption: str | None = None,
        *,
        endpoint: str | None = None,
        region: str | None = None,
    ) -> None:
        self._encryption = encryption
        self._root = root_of(run, s3root, bucket, prefix)
        self._session = Session(tmproot, endpoint, region)

    def __enter__(self) -> S3:  # noqa: PYI034  Self is not in Python 3.10
        """Itself."""
        self._session.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Deletes the temporary files, and closes the connections."""
        self._session.close()

    def __repr__(self) -> str:
        return f"<S3 {self._root or '(URLs)'}{' (closed)' if self._session.is_closed else ''}>"

    # ------------------------------------------------------------------ listings

    def list_paths(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """The objects directly below prefixes, and the prefixes below those, which don't ``exist``.

        Args:
            keys: Prefixes, which end at a slash: ``data`` is ``data/…``, and not ``database``. None for the URL that it
                was made with. Each is a request.

        Raises:
            S3UrlError: A key means nothing.
        """
        return self._listed(keys, "/")

    def list_recursive(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """All objects below prefixes.

        Args:
            keys: As of ``list_paths``.

        Raises:
            S3UrlError: A key means nothing.
        """
        return self._listed(keys, "")

    # ------------------------------------------------------------------ facts

    def info(self, key: str | None = None, return_missing: bool = False) -> S3Object:  # noqa: FBT001, FBT002  Metaflow's
        """An object's size, metadata and so on, without its bytes.

        Args:
            key: The object; None for the one at the URL that it was made with.
            return_missing: Whether a missing object is returned, as one that doesn't ``exist``.

        Raises:
            ObjectNotFoundError: There is no such object.
            S3UrlError: The key means no object.
        """
        return self._info(urls.located(self._root, key), is_optional=return_missing)

    def info_many(self, keys: Iterable[str], return_missing: bool = False) -> list[S3Object]:  # noqa: FBT001, FBT002
        """As ``info``, for many objects in parallel, in the order of the keys."""
        places = [urls.located(self._root, key) for key in _several(keys, "info_many")]
        return self._session.parallel(lambda place: self._info(place, is_optional=return_missing), places)

    # ------------------------------------------------------------------ reading

    def get(
        self,
        key: str | S3GetObject | None = None,
        return_missing: bool = False,  # noqa: FBT001, FBT002  the order that users know
        return_info: bool = True,  # noqa: FBT001, FBT002  the order that users know
    ) -> S3Object:
        """Downloads an object to a temporary file; a large one in parallel ranges.

        Args:
            key: The object, or a part of one; None for the one at the URL that it was made with.
            return_missing: As of ``info``.
            return_info: Whether it has metadata and so on.

        Raises:
            ObjectNotFoundError: There is no such object.
            S3RangeError: It has none of the bytes.
            S3UrlError: The key means no object.
            S3Error: The file can't be written.
        """
        return self._got([key], return_missing=return_missing, return_info=return_info)[0]

    def get_many(
        self,
        keys: Iterable[str | S3GetObject],
        return_missing: bool = False,  # noqa: FBT001, FBT002  the order that users know
        return_info: bool = True,  # noqa: FBT001, FBT002  the order that users know
    ) -> list[S3Object]:
        """As ``get``, for many objects in parallel, in the order of the keys."""
        return self._got(_several(keys, "get_many"), return_missing=return_missing, return_info=return_info)

    def get_recursive(self, keys: Iterable[str], return_info: bool = False) -> list[S3Object]:  # noqa: FBT001, FBT002
        """Downloads all objects below prefixes.

        Args:
            keys: As of ``list_paths``.
            return_info: As of ``get``.

        Raises:
            ObjectNotFoundError: An object was deleted after it was listed.
            S3UrlError: A key means nothing.
        """
        listed = self._found(_several(keys, "get_recursive"), "")
        whole = [(Location(place.bucket, found.key), "") for place, found in listed]
        downloads = self._download(whole, return_missing=True)
        for (where, _), downloaded in zip(whole, downloads, strict=True):
            if downloaded is None:
                raise ObjectNotFoundError(
                    f"there is no {where.url}, though it was listed.",
                    cause="It was deleted meanwhile, or the server can't list its name as it is.",
                )
        return [
            _object(where, place.url, downloaded, has_info=return_info)
            for (place, _), (where, _), downloaded in zip(listed, whole, downloads, strict=True)
        ]

    def get_all(self, return_info: bool = False) -> list[S3Object]:  # noqa: FBT001, FBT002  Metaflow's
        """Downloads all objects below the URL that it was made with.

        Args:
            return_info: As of ``get``.

        Raises:
            S3UrlError: It was made without one.
        """
        urls.listed(self._root, None)
        return self.get_recursive([""], return_info)

    # ------------------------------------------------------------------ writing

    def put(
        self,
        key: str | S3PutObject,
        obj: Any = None,
        overwrite: bool = True,  # noqa: FBT001, FBT002  the order that users know
        content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Writes an object; a large one in parallel parts.

        Args:
            key: The object, or an ``S3PutObject`` with all of this.
            obj: A text, which is written as UTF-8, bytes, or a file that is open in binary mode.
            overwrite: Whether an object that exists is replaced; else it is left as it is, and nothing is written.
            content_type: Its MIME type.
            metadata: A dictionary of values that JSON can hold, at most 2 kB in all.

        Returns:
            Its URL.

        Raises:
            S3UrlError: The key means no object.
            S3Error: The value or the metadata can't be written.
        """
        wanted = key if isinstance(key, S3PutObject) else S3PutObject(key, obj, None, content_type, None, metadata)
        place = urls.written(self._root, wanted.key)
        self._put(place, wanted, overwrite=overwrite)
        return place.url

    def put_many(
        self,
        key_objs: Iterable[tuple[str, Any] | S3PutObject],
        overwrite: bool = True,  # noqa: FBT001, FBT002  the order that users know
    ) -> list[tuple[str, str]]:
        """Writes many objects in parallel.

        Args:
            key_objs: Pairs of a key and a value, or S3PutObjects.
            overwrite: As of ``put``.

        Returns:
            Pairs of the key and the URL, of the objects that were written.

        Raises:
            S3UrlError: A key means no object.
            S3Error: A value can't be written.
        """
        wanted = [each if isinstance(each, S3PutObject) else S3PutObject(*_pair(each)) for each in key_objs]
        return self._put_all(wanted, overwrite=overwrite)

    def put_files(
        self,
        key_paths: Iterable[tuple[str, str | os.PathLike[str]] | S3PutObject],
        overwrite: bool = True,  # noqa: FBT001, FBT002  the order that users know
    ) -> list[tuple[str, str]]:
        """As ``put_many``, for files: pairs of a key and a path, or S3PutObjects with paths."""
        wanted = [
            each if isinstance(each, S3PutObject) else S3PutObject(_pair(each)[0], path=cast("str", each[1]))
            for each in key_paths
        ]
        for each in wanted:
            if each.path is None:
                raise S3Error(f"put_files: {each.key!r} has no path.", advice="Values are written by put_many.")
        return self._put_all(wanted, overwrite=overwrite)

    # ------------------------------------------------------------------ how

    def _listed(self, keys: Iterable[str] | None, delimiter: str) -> list[S3Object]:
        wanted: Sequence[str | None] = [None] if keys is None else _several(keys, "a listing")
        return [
            S3Object(Location(place.bucket, found.key).url, place.url, size=found.size)
            for place, found in self._found(wanted, delimiter)
        ]

    def _found(self, keys: Sequence[str | None], delimiter: str) -> list[tuple[Location, Found]]:
        """The contents of prefixes, each with its prefix."""
        places = [urls.listed(self._root, key) for key in keys]
        places = [Location(bucket, f"{key.rstrip('/')}/" if key else "") for bucket, key in places]

        def listing(place: Location) -> list[Found]:
            return self._session.bucket(place).listing(place.key, delimiter)

        found = self._session.parallel(listing, places)
        return [(place, each) for place, listed in zip(places, found, strict=True) for each in listed]

    def _info(self, place: Location, *, is_optional: bool) -> S3Object:
        try:
            headers = self._session.bucket(place).info(place.key)
        except ObjectNotFoundError:
            if is_optional:
                return S3Object(place.url, self._root)
            raise
        return S3Object(place.url, self._root, size=int(headers.get("content-length", 0)), headers=headers)

    def _got(
        self, keys: Sequence[str | S3GetObject | None], *, return_missing: bool, return_info: bool
    ) -> list[S3Object]:
        wanted = [
            (urls.located(self._root, key.key), span_of(key.offset, key.length))
            if isinstance(key, S3GetObject)
            else (urls.located(self._root, key), "")
            for key in keys
        ]
        found = self._download(wanted, return_missing=return_missing)
        return [
            _object(place, self._root, downloaded, has_info=return_info)
            for (place, _), downloaded in zip(wanted, found, strict=True)
        ]

    def _download(self, wanted: Sequence[tuple[Location, str]], *, return_missing: bool) -> list[Downloaded | None]:
        """The objects in files; None for a missing one."""

        def small(item: tuple[Location, str]) -> Downloaded | None:
            place, span = item
            try:
                return self._download_of(place).small(place.key, span)
            except ObjectNotFoundError:
                if return_missing:
                    return None
                raise

        found = self._session.parallel(small, wanted)
        for position, ((place, _), each) in enumerate(zip(wanted, found, strict=True)):
            if each is not None and not each.is_complete:
                found[position] = self._download_of(place).large(place.key, each)
        return found

    def _download_of(self, place: Location) -> Download:
        return Download(self._session.bucket(place), self._session.folder())

    def _put_all(self, wanted: Sequence[S3PutObject], *, overwrite: bool) -> list[tuple[str, str]]:
        items = [(urls.written(self._root, each.key), each) for each in wanted]
        written = self._session.parallel(lambda item: self._put(*item, overwrite=overwrite), items)
        return [(each.key, place.url) for (place, each), is_written in zip(items, written, strict=True) if is_written]

    def _put(self, place: Location, wanted: S3PutObject, *, overwrite: bool) -> bool:
        try:
            headers = headers_of(wanted.content_type, wanted.metadata, wanted.encryption or self._encryption)
        except TypeError as error:
            raise S3Error(f"the metadata of {wanted.key!r} can't be written as JSON: {error}.") from error
        if wanted.path is not None:
            source = upload.file_source(wanted.path, wanted.key)
        else:
            source = upload.source_of(wanted.value, wanted.key, self._session.folder)
        return upload.write(self._session.bucket(place), place.key, source, headers, overwrite=overwrite)


def _object(place: Location, prefix: str | None, found: Downloaded | None, *, has_info: bool) -> S3Object:
    if found is None:
        return S3Object(place.url, prefix)
    headers, part = (found.headers, found.range_info) if has_info else (None, None)
    return S3Object(place.url, prefix, found.path, found.size, headers, part, found.folder)


def _several(keys: Iterable[_Item], call: str) -> list[_Item]:
    """The keys as a list; a text would be one for each of its characters."""
    if isinstance(keys, str):
        raise S3Error(f"{call} takes a list of keys, and this is one key: {keys!r}.", advice=f"Write [{keys!r}].")
    return list(keys)


def _pair(item: Any) -> tuple[str, Any]:
    try:
        key, value = item
    except (TypeError, ValueError):
        raise S3Error(f"{item!r:.100} is not a pair of a key and a value.") from None
    return key, value
