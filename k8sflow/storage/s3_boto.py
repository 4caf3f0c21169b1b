"""Requests to a bucket through boto3."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.loaders import Loader, create_loader
from botocore.session import Session as BotocoreSession
from botocore.session import get_session

from k8sflow.errors import ConfigurationError
from k8sflow.http_dates import seconds_of
from k8sflow.s3_options import REQUESTER_PAYS, S3Options
from k8sflow.storage.objects import Buffer
from k8sflow.storage.s3_client import (
    CONNECT_SECONDS,
    CONTENT_TYPE,
    DELETED_BEFORE,
    ENCRYPTION,
    METADATA,
    NO_HEADERS,
    READ_SECONDS,
    TRIES,
    NoAnswerError,
    NoKeysError,
    Page,
    RefusedError,
    Status,
    Upload,
)
from k8sflow.storage.s3_errors import why_unreachable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, ObjectIdentifierTypeDef

# The operations that create objects; a part of an upload has the headers of the upload.
_CREATING = ("PutObject", "CreateMultipartUpload")


class BotoClient:
    """A client that finds keys and servers as the AWS command line does.

    Args:
        bucket: The bucket.
        endpoint: URL of the server; None for AWS.
        region: Region of the bucket.
        connections: How many are kept open.
        options: How requests are sent.
    """

    def __init__(
        self, bucket: str, endpoint: str | None, region: str | None, connections: int, options: S3Options
    ) -> None:
        self._bucket = bucket
        self._make = functools.partial(_client, endpoint, region, connections, options)
        self._renewing = threading.Lock()
        self._used = threading.local()  # .keys: those of this thread's last request
        self._current = self._make()

    def read(self, key: str, span: str = "", etag: str = "") -> BotoReading:
        options: dict[str, Any] = {"Range": span} if span else {}
        if etag:
            options["IfMatch"] = etag
        with _translated():
            answer = self._client().get_object(Bucket=self._bucket, Key=key, **options)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return BotoReading(answer["ContentLength"], answer["ETag"], headers, answer["Body"])

    def write(self, key: str, body: Buffer, *, is_new: bool = False, headers: Mapping[str, str] = NO_HEADERS) -> None:
        options: dict[str, Any] = {"IfNoneMatch": "*"} if is_new else {}
        sent = body if isinstance(body, bytes) else bytes(body)
        with _translated():
            self._client().put_object(Bucket=self._bucket, Key=key, Body=sent, **options, **_options(headers))

    def begin_upload(self, key: str, headers: Mapping[str, str] = NO_HEADERS) -> str:
        with _translated():
            answer = self._client().create_multipart_upload(Bucket=self._bucket, Key=key, **_options(headers))
        return answer["UploadId"]

    def upload_part(self, key: str, upload: str, number: int, body: Sequence[Buffer]) -> str:
        with contextlib.closing(_Joined(body)) as file, _translated():
            answer = self._client().upload_part(
                Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=number, Body=cast("BinaryIO", file)
            )
        return answer["ETag"]

    def end_upload(self, key: str, upload: str, etags: Sequence[str], *, is_new: bool = False) -> None:
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)
        ]
        options: dict[str, Any] = {"IfNoneMatch": "*"} if is_new else {}
        with _translated():
            self._client().complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **options
            )

    def abandon_upload(self, key: str, upload: str) -> None:
        with _translated():
            self._client().abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def uploads(self, prefix: str, token: str = "") -> tuple[Sequence[Upload], str | None]:
        options: dict[str, Any] = {"KeyMarker": token} if token else {}
        with _translated():
            page = self._client().list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **options)
        now = _now(page)
        found = [
            Upload(each["Key"], each["UploadId"], now - each["Initiated"].timestamp())
            for each in page.get("Uploads", [])
        ]
        return found, (page.get("NextKeyMarker") or None) if page.get("IsTruncated") else None

    def upload_size(self, key: str, upload: str) -> int:
        with _translated():
            pages = self._client().get_paginator("list_parts").paginate(Bucket=self._bucket, Key=key, UploadId=upload)
            return sum(part["Size"] for page in pages for part in page.get("Parts", []))

    def size(self, key: str) -> int:
        return int(self.info(key).get("content-length", 0))

    def info(self, key: str) -> Mapping[str, str]:
        with _translated():
            return self._client().head_object(Bucket=self._bucket, Key=key)["ResponseMetadata"]["HTTPHeaders"]

    def status(self, key: str) -> Status:
        with _translated():
            found = self._client().head_object(Bucket=self._bucket, Key=key)
        return Status(found["ContentLength"], _now(found) - found["LastModified"].timestamp())

    def delete(self, keys: Sequence[str]) -> str:
        objects: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys]
        with _translated():
            answer = self._client().delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        codes = (str(error.get("Code")) for error in answer.get("Errors", []))
        return next((code for code in codes if code != DELETED_BEFORE), "")

    def page(self, prefix: str, delimiter: str = "", token: str = "", most: int = 1000) -> Page:
        options: dict[str, Any] = {"ContinuationToken": token} if token else {}
        with _translated():
            page = self._client().list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, Delimiter=delimiter, MaxKeys=most, **options
            )
        keys = [entry["Key"] for entry in page.get("Contents", [])]
        prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        now = _now(page)
        statuses = [Status(each["Size"], now - each["LastModified"].timestamp()) for each in page.get("Contents", [])]
        token = page.get("NextContinuationToken", "") if page.get("IsTruncated") else ""
        return Page(keys, prefixes, token, statuses)

    def renew(self) -> bool:
        """As ``S3Client``: a tool may have written others into the files of a profile.

        The keys that count are those of the calling thread's last request: another thread may have read new ones since.
        """
        used = getattr(self._used, "keys", None)
        if used is None:
            return False
        with self._renewing:
            if self._current[1] != used:
                return True
            found = self._make()
            if found[1] == used:
                found[0].close()
                return False
            self._current = found  # requests of other threads may still use the earlier client
            return True

    def close(self) -> None:
        self._current[0].close()

    def _client(self) -> S3Client:
        """The client for a request of this thread."""
        client, self._used.keys = self._current
        return client


class BotoReading:
    """As ``Reading``."""

    def __init__(self, size: int, etag: str, headers: Mapping[str, str], body: Any) -> None:
        self.size = size
        self.etag = etag
        self.headers = headers
        self._body = body

    def read_into(self, target: memoryview) -> None:
        position = 0
        for piece in self.pieces():
            target[position : position + len(piece)] = piece
            position += len(piece)

    def pieces(self) -> Generator[memoryview, None, None]:
        missing = self.size
        with _translated():
            for chunk in self._body.iter_chunks(1 << 20):
                yield memoryview(chunk)
                missing -= len(chunk)
        if missing:
            raise NoAnswerError(f"{missing} bytes of the answer are missing")

    def close(self) -> None:
        self._body.close()


def _now(answer: Any) -> float:
    """The server's time in an answer, in seconds since 1970."""
    return seconds_of(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translates boto3's errors into those of ``S3Client``."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise NoKeysError(str(error)) from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        metadata = error.response.get("ResponseMetadata", {})
        date = metadata.get("HTTPHeaders", {}).get("date", "")
        raise RefusedError(code, metadata.get("HTTPStatusCode", 0), str(error), date) from error
    except (EndpointConnectionError, ConnectTimeoutError) as error:
        raise NoAnswerError(why_unreachable(error), is_unreachable=True) from error
    except (BotoConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise NoAnswerError(str(error).rstrip(".")) from error
    except BotoCoreError as error:
        raise ValueError(str(error)) from error


def _options(headers: Mapping[str, str]) -> dict[str, Any]:
    """The arguments by which boto3 sends headers of an object."""
    names = {CONTENT_TYPE: "ContentType", ENCRYPTION: "ServerSideEncryption"}
    options: dict[str, Any] = {argument: headers[name] for name, argument in names.items() if name in headers}
    metadata = {name.removeprefix(METADATA): text for name, text in headers.items() if name.startswith(METADATA)}
    return options | ({"Metadata": metadata} if metadata else {})


class _Joined(io.RawIOBase):
    """A seekable file of several buffers, which are not copied."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(part).cast("B") for part in parts]
        self._size = sum(map(len, self._parts))
        self._position = 0

    def close(self) -> None:
        """Releases the buffers, so that their owner may resize them."""
        for part in self._parts:
            part.release()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(base + offset, 0), self._size)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        wanted, done, start = len(view), 0, 0
        for part in self._parts:
            inside = self._position - start
            if 0 <= inside < len(part) and done < wanted:
                count = min(len(part) - inside, wanted - done)
                view[done : done + count] = part[inside : inside + count]
                done += count
                self._position += count
            start += len(part)
        return done


def _client(endpoint: str | None, region: str | None, connections: int, options: S3Options) -> tuple[S3Client, object]:
    """A client, and its keys, if they are fixed."""
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "max_attempts": TRIES},
        max_pool_connections=connections,
        # Blobs have their own sha256; another checksum of every byte is only sent if the API requires one.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else {},
        proxies={"http": options.proxy, "https": options.proxy} if options.proxy else None,
        signature_version=UNSIGNED if options.anonymous else None,
    )
    try:
        session = boto3.session.Session(botocore_session=_core())
        client = session.client(
            "s3", endpoint_url=endpoint, region_name=region, config=config, verify=options.ca_bundle
        )
    except (ValueError, BotoCoreError) as error:
        raise ConfigurationError(
            f"the S3 client for the endpoint {endpoint!r} can't be created: {error}",
            advice="The setting endpoint (K8SFLOW_ENDPOINT) is a URL such as http://127.0.0.1:7070.",
        ) from error
    _add_headers(client, options)
    if options.anonymous:
        return client, None
    found = session.get_credentials()  # which the client has resolved
    # Others renew themselves, and asking them for their keys may take a request.
    is_fixed = type(found) is Credentials
    return client, (found.access_key, found.secret_key, found.token) if is_fixed and found is not None else None


def _core() -> BotocoreSession:
    """A session with keys of its own, and the descriptions of services that this process, or its parent, has read.

    Reading them takes most of the time in which a client is created, and each local task is a fork that creates one.
    """
    core = get_session()
    core.register_component("data_loader", _descriptions())
    return core


@functools.cache
def _descriptions() -> Loader:
    return create_loader(get_session().get_config_variable("data_path"))


def _add_headers(client: S3Client, options: S3Options) -> None:
    """Lets a client send the headers of the options, which are signed with the rest of a request."""

    def add(headers: Mapping[str, str]) -> Callable[..., None]:
        # Those of the call itself win, such as the encryption of S3.put.
        return lambda params, **_: params["headers"].update({**headers, **params["headers"]})

    events = client.meta.events
    if options.requester_pays:
        events.register("before-call.s3", add(REQUESTER_PAYS))
    for operation in _CREATING if options.write_headers else ():
        events.register(f"before-call.s3.{operation}", add(options.write_headers))
