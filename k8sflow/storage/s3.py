"""An object store in an S3 bucket, through boto3."""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
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

from k8sflow.debug_log import DebugLog
from k8sflow.errors import ConfigurationError, ObjectNotFoundError, OutageError, StorageError, UnreachableError
from k8sflow.outages import Report
from k8sflow.storage.objects import Buffer
from k8sflow.storage.patience import Patience, patient
from k8sflow.storage.s3_log import S3Log, read_log

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef

_log = DebugLog(__name__)
_PART_BYTES = 16 << 20
_MULTIPART_FROM_BYTES = 64 << 20
_PARALLEL_PARTS = 8
_NOT_FOUND = {"404", "NoSuchKey", "NotFound"}
_NO_MORE = {"416", "InvalidRange"}
_TAKEN = {"412", "PreconditionFailed"}
# Simultaneous writes: S3 has refused this one, and perhaps the others too, and expects another try.
_UNDECIDED = {"409", "ConditionalRequestConflict"}
_TRIES = 8
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
_MOST_DELETED = 1000
# The last one is versitygw's code for an unknown access key.
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "XAdminUserNotFound"}
_SERVER_ERROR = 500
_BROKEN_OFF = {"NoSuchUpload", "RequestTimeout", "IncompleteBody"}  # the server was restarted and lost an upload


class S3Store:
    """Objects in a bucket; calls wait while the server can't be reached.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``.
        endpoint: URL of the server; None for AWS.
        region: Region of the bucket.
        patience: How long calls wait for the server.
    """

    parallel_reads = 32
    is_shared = True
    poll_seconds = 2.0
    folder = None

    def __init__(
        self, url: str, *, endpoint: str | None = None, region: str | None = None, patience: Patience | None = None
    ) -> None:
        self.bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self.endpoint = endpoint
        self.region = region
        self.patience = patience or Patience()
        self._client = _client(endpoint, region)
        _log.debug("Opened %s at %s.", self.url, endpoint or "AWS S3")
        self._transfer = TransferConfig(
            multipart_threshold=_MULTIPART_FROM_BYTES,
            multipart_chunksize=_PART_BYTES,
            max_concurrency=_PARALLEL_PARTS,
        )

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __reduce__(self) -> tuple[Callable[[], S3Store], tuple[()]]:
        """Pickles the address only: connections and credentials belong to their process."""
        return functools.partial(S3Store, self.url, endpoint=self.endpoint, region=self.region), ()

    @patient
    def get(self, key: str) -> Buffer:
        """The object's bytes; large ones are read in parallel ranges."""
        with self._translated(key):
            answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            size = answer["ContentLength"]
            if size < _MULTIPART_FROM_BYTES:
                return bytearray(answer["Body"].read())
            answer["Body"].close()
            return self._get_ranges(key, size, answer["ETag"])

    def tail(self, key: str, start: int) -> bytes:
        """The log's bytes from an offset on, by a range request for each of its objects."""
        return read_log(self._rest, key, start)

    @patient
    def _rest(self, key: str, start: int) -> bytes:
        """The object's bytes from an offset on."""
        with self._translated(key):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key, Range=f"bytes={start}-")
                return answer["Body"].read()
            except ClientError as error:
                if _code(error) in _NOT_FOUND | _NO_MORE:
                    return b""
                raise

    @patient
    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Writes the object; a large one in parallel parts."""
        if sum(len(memoryview(part).cast("B")) for part in parts) < _MULTIPART_FROM_BYTES:
            with self._translated(key):
                self._client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=b"".join(parts))
        else:
            with contextlib.closing(_Joined(parts)) as file, self._translated(key):
                target = self.prefix + key
                self._client.upload_fileobj(cast("BinaryIO", file), self.bucket, target, Config=self._transfer)

    @patient
    def put_new(self, key: str, data: bytes) -> bool:
        """Writes the object with ``If-None-Match: *``
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
        """  # noqa: D205
        with self._translated(key):
            for pause_seconds in (0.02 * 1.6**i for i in range(_TRIES)):
                try:
                    self._client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, IfNoneMatch="*")
                except ClientError as error:
                    if _code(error) in _TAKEN:
                        return False
                    if _code(error) in _NOT_FOUND:  # versitygw has answered so right after an outage
                        raise OutageError(
                            f"{self.endpoint or 'AWS S3'} can't be used for {self.url}/{key}: "
                            f"it answers the write with {_code(error)}."
                        ) from error
                    if _code(error) not in _UNDECIDED:
                        raise
                    refused = error
                    _log.debug("%s/%s: %s. Retrying in %.2f s.", self.url, key, _code(error), pause_seconds)
                else:
                    return True
                time.sleep(pause_seconds)
            raise refused

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects, in batches of 1000."""
        for start in range(0, len(keys), _MOST_DELETED):
            self._delete(keys[start : start + _MOST_DELETED])

    @patient
    def _delete(self, keys: Sequence[str]) -> None:
        objects: list[ObjectIdentifierTypeDef] = [{"Key": self.prefix + key} for key in keys]
        with self._translated(keys[0]):
            answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := answer.get("Errors"):
            code, server = str(errors[0].get("Code")), self.endpoint or "AWS S3"
            raise StorageError(
                f"{server} refused to delete {self.url}/{keys[0]} ({code}).",
                advice="Allow s3:DeleteObject below the bucket's prefix." if code == "AccessDenied" else "",
            )

    @patient
    def exists(self, key: str, size: int | None = None) -> bool:
        """True if there is an object under the key, and it has the size, if one is given."""
        with self._translated(key):
            try:
                found = self._client.head_object(Bucket=self.bucket, Key=self.prefix + key)
            except ClientError as error:
                if _code(error) in _NOT_FOUND:
                    return False
                raise
            return size in {None, found["ContentLength"]}

    def list_keys(self, prefix: str) -> Iterator[str]:
        """All keys below a prefix, in pages of 1000."""
        for page in self._pages(prefix, ""):
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self.prefix)

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The common prefixes directly below a prefix."""
        for page in self._pages(prefix, "/"):
            for entry in page.get("CommonPrefixes", []):
                yield entry["Prefix"].rstrip("/").rpartition("/")[2]

    def open_log(self, key: str) -> S3Log:
        """A log that is written again as it grows."""
        return S3Log(self, key)

    def after_fork(self) -> S3Store:
        """A store with connections of its own."""
        return S3Store(self.url, endpoint=self.endpoint, region=self.region, patience=self.patience.after_fork())

    def report_outages(self, report: Report) -> None:
        """Sets the function to call when a call waits for the server, and when the server answers again."""
        self.patience.outage.report = report

    def limit_patience(self, seconds: float) -> None:
        """Limits how long all calls together wait for the server from now on."""
        self.patience.limit(seconds)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    @patient
    def check(self) -> None:
        """Checks that the bucket exists and may be read.

        Raises:
            ConfigurationError: It doesn't exist, or the keys are wrong or missing.
            StorageError: The server can't be reached.
        """
        with self._translated(""):
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)

    def _pages(self, prefix: str, delimiter: str) -> Iterator[Any]:
        page = self._page(prefix, delimiter)
        yield page
        while page.get("IsTruncated"):
            page = self._page(prefix, delimiter, ContinuationToken=page["NextContinuationToken"])
            yield page

    @patient
    def _page(self, prefix: str, delimiter: str, **after: str) -> Any:
        where = {"Bucket": self.bucket, "Prefix": self.prefix + prefix, "Delimiter": delimiter}
        with self._translated(prefix):
            return self._client.list_objects_v2(**where, **after)  # type: ignore[arg-type]  # all of them are strings

    def _get_ranges(self, key: str, size: int, etag: str) -> Buffer:
        target = memoryview(bytearray(size))

        def fetch(start: int) -> None:
            end = min(start + _PART_BYTES, size)
            answer = self._client.get_object(
                Bucket=self.bucket, Key=self.prefix + key, Range=f"bytes={start}-{end - 1}", IfMatch=etag
            )
            position = start
            for chunk in answer["Body"].iter_chunks(1 << 20):
                target[position : position + len(chunk)] = chunk
                position += len(chunk)
            if position != end:
                raise OutageError(f"{self.url}/{key}: {end - position} bytes of a range are missing.")

        with ThreadPoolExecutor(_PARALLEL_PARTS) as pool:
            list(pool.map(fetch, range(0, size, _PART_BYTES)))
        return target

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Translates boto3's errors into k8sflow's."""
        where = f"{self.url}/{key}".rstrip("/")
        server = self.endpoint or "AWS S3"
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ConfigurationError(
                f"there are no keys for {self.url} at {server}: {error}.",
                advice="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            ) from error
        except ClientError as error:
            raise self._error_of(error, where, server) from error
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            raise UnreachableError(
                f"{server} can't be reached for {where}: {_why_unreachable(error)}.",
                cause="The server is down, or the endpoint is wrong.",
                advice="Check the setting endpoint (K8SFLOW_ENDPOINT), or in_cluster_endpoint for pods.",
            ) from error
        except (BotoConnectionError, HTTPClientError, IncompleteReadError) as error:
            raise OutageError(
                f"{server} can't be reached for {where}: {str(error).rstrip('.')}.",
                cause="The server is down, or the endpoint is wrong.",
                advice="Check the setting endpoint (K8SFLOW_ENDPOINT), or in_cluster_endpoint for pods.",
            ) from error
        except (BotoCoreError, ValueError, OSError) as error:
            raise StorageError(f"{where} at {server}: {error}") from error

    def _error_of(self, error: ClientError, where: str, server: str) -> StorageError | ConfigurationError:
        code = _code(error)
        if code == "NoSuchBucket":
            return ConfigurationError(
                f"there is no bucket {self.bucket!r} at {server}.",
                advice="Create it, or correct the setting bucket (K8SFLOW_BUCKET) or endpoint (K8SFLOW_ENDPOINT).",
            )
        if code in _NOT_FOUND:
            return ObjectNotFoundError(f"there is no {where}.")
        if code in _WRONG_KEYS:
            return ConfigurationError(
                f"{server} doesn't accept the keys for {self.url} ({code}).",
                advice="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            )
        if code in {"AccessDenied", "403", "Forbidden"}:
            return ConfigurationError(
                f"{server} denies these keys access to {where} ({code}).",
                cause="They are wrong, or they need s3:ListBucket on the bucket, and s3:GetObject and s3:PutObject "
                "below it.",
                advice="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and the bucket's policy.",
            )
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = OutageError if status >= _SERVER_ERROR or code in _BROKEN_OFF else StorageError
        return kind(f"{server} refused {where}: {error}")


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


def _client(endpoint: str | None, region: str | None) -> S3Client:
    config = Config(
        connect_timeout=3,  # three attempts: an unreachable server is to be reported after some ten seconds
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=S3Store.parallel_reads,
        # Blobs have their own sha256; another checksum of every byte is only sent if the API requires one.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else {},
    )
    try:
        return boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)
    except (ValueError, BotoCoreError) as error:
        raise ConfigurationError(
            f"the S3 client for the endpoint {endpoint!r} can't be created: {error}",
            advice="The setting endpoint (K8SFLOW_ENDPOINT) is a URL such as http://127.0.0.1:7070.",
        ) from error


def _why_unreachable(error: BaseException) -> str:
    """The system's reason why there is no connection, which botocore's message lacks."""
    seen: list[BaseException] = []
    reason: BaseException | None = error
    while reason is not None and reason not in seen:
        if isinstance(reason, socket.gaierror):
            return f"its name can't be resolved by DNS ({reason.strerror})"
        if isinstance(reason, ConnectionRefusedError):
            return "the connection was refused, so nothing listens there"
        seen.append(reason)
        reason = reason.__cause__ or reason.__context__
    return str(error).rstrip(".")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
