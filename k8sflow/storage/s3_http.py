"""Requests to a bucket through the standard library's HTTP client."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_plus

from k8sflow.debug_log import DebugLog
from k8sflow.http_dates import seconds_ahead, seconds_of
from k8sflow.jitter import JITTER
from k8sflow.s3_options import REQUESTER_PAYS, S3Options
from k8sflow.storage.objects import Buffer
from k8sflow.storage.s3_client import (
    ANSWER_SECONDS,
    DELETED_BEFORE,
    NO_HEADERS,
    READ_SECONDS,
    NoAnswerError,
    Page,
    RefusedError,
    Status,
    Upload,
)
from k8sflow.storage.s3_connections import Answer, ConnectionPool, HttpReading
from k8sflow.storage.s3_errors import age_of, is_of_clock
from k8sflow.storage.s3_signing import UNSIGNED, Keys, digest, path_of, query_of, signed

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_log = DebugLog(__name__)
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_SUCCESS = range(200, 300)
_IF_NEW = {"if-none-match": "*"}
# Requests that are sent again, corrected by the server's answer about its region or its clock: one each, and one for
# another thread's correction in between.
_MOST_CORRECTIONS = 4
_OVERLOADED = frozenset({429, 500, 502, 503, 504})
# A longer body may still be on its way when the wait for the answer begins.
_SHORT_BYTES = 64 << 10
_NO_OPTIONS = S3Options()
_NO_QUERY: Mapping[str, str] = {}
_Result = TypeVar("_Result")


def plain_client(
    bucket: str,
    endpoint: str | None,
    region: str | None,
    connections: int,
    environment: Mapping[str, str] = os.environ,
    options: S3Options = _NO_OPTIONS,
) -> HttpClient | None:
    """A client for a server with an address and keys of its own, or None where boto3 has to look for something.

    Args:
        bucket: The bucket.
        endpoint: URL of the server; None for AWS.
        region: Region of the bucket.
        connections: How many are kept open.
        environment: The environment, with the keys.
        options: How requests are sent; proxies and requests without keys are left to boto3.
    """
    if options.proxy or options.anonymous:
        return None
    keys = Keys(
        *(environment.get(f"AWS_{name}", "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"))
    )
    if not keys.access_key or not keys.secret_key or not region or not _BUCKET.fullmatch(bucket):
        return None
    if any(environment.get(name) for name in _PROFILES) or _config_file(environment).exists():
        return None
    try:
        server = ConnectionPool(endpoint or "", connections, options.ca_bundle)
    except ValueError:  # boto3 has the message
        return None
    connecting = [f"{server.scheme}_proxy", f"{server.scheme.upper()}_PROXY"]
    if server.scheme == "https" and options.ca_bundle is None:
        connecting.append("AWS_CA_BUNDLE")
    if not server.is_plain or any(environment.get(name) for name in connecting) or ".amazonaws." in server.host:
        return None
    return HttpClient(bucket, server, region, keys, options)


def _config_file(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("AWS_CONFIG_FILE") or Path(environment.get("HOME") or "/", ".aws", "config"))


@dataclass(frozen=True)
class _Request:
    """A request to the bucket.

    Args:
        method: The HTTP method.
        key: The object's key; empty for the bucket itself.
        query: The query's parameters.
        headers: The headers, besides those that all requests have.
        body: The body's pieces.
    """

    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Sequence[Buffer] = ()


class HttpClient:
    """A client with fixed keys.

    Args:
        bucket: The bucket.
        server: The server.
        region: Region of the bucket.
        keys: The keys.
        options: How requests are sent.
    """

    def __init__(
        self, bucket: str, server: ConnectionPool, region: str, keys: Keys, options: S3Options = _NO_OPTIONS
    ) -> None:
        self._bucket = bucket
        self._server = server
        self._region = region
        self._keys = keys
        self._always = REQUESTER_PAYS if options.requester_pays else {}
        self._write_headers = options.write_headers
        self._ahead = 0.0  # seconds by which the server's clock is ahead of this machine's, once it has refused that

    def read(self, key: str, span: str = "", etag: str = "") -> HttpReading:
        headers = {name: value for name, value in (("range", span), ("if-match", etag)) if value}
        request = _Request("GET", key, _NO_QUERY, headers)
        return HttpReading(again(lambda seconds: self._send(request, seconds)))

    def write(self, key: str, body: Buffer, *, is_new: bool = False, headers: Mapping[str, str] = NO_HEADERS) -> None:
        new = _IF_NEW if is_new else {}
        self._call("PUT", key, headers={**self._write_headers, **headers, **new}, body=[body])

    def begin_upload(self, key: str, headers: Mapping[str, str] = NO_HEADERS) -> str:
        _, answer = self._call("POST", key, {"uploads": ""}, {**self._write_headers, **headers})
        return _text(answer, "UploadId")

    def upload_part(self, key: str, upload: str, number: int, body: Sequence[Buffer]) -> str:
        answer, _ = self._call("PUT", key, {"partNumber": str(number), "uploadId": upload}, body=body)
        return answer.etag

    def end_upload(self, key: str, upload: str, etags: Sequence[str], *, is_new: bool = False) -> None:
        # It may fail after its status was sent:
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
        listed = [
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1)
        ]
        document = f"<CompleteMultipartUpload>{''.join(listed)}</CompleteMultipartUpload>"
        _, answer = self._call(
            "POST", key, {"uploadId": upload}, _IF_NEW if is_new else {}, [document.encode()], is_slow=True
        )
        if b"<Error>" in answer:
            raise _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, answer)[0]

    def abandon_upload(self, key: str, upload: str) -> None:
        self._call("DELETE", key, {"uploadId": upload})

    def uploads(self, prefix: str, token: str = "") -> tuple[Sequence[Upload], str | None]:
        # Without the marker of uploads, which versitygw refuses: others of the last key are left to the next time.
        query = {"uploads": "", "prefix": prefix, **({"key-marker": token} if token else {})}
        answer, body = self._call("GET", "", query)
        document, now = _parsed(body), seconds_of(answer.date)
        found = []
        for each in document.iterfind("{*}Upload"):
            key, name, started = (each.findtext(f"{{*}}{tag}") or "" for tag in ("Key", "UploadId", "Initiated"))
            found.append(Upload(key, name, age_of(started, now)))
        is_more = document.findtext("{*}IsTruncated") == "true"
        return found, (document.findtext("{*}NextKeyMarker") or None) if is_more else None

    def upload_size(self, key: str, upload: str) -> int:
        size, marker = 0, "0"
        while marker:
            document = _parsed(self._call("GET", key, {"uploadId": upload, "part-number-marker": marker})[1])
            size += sum(int(part.findtext("{*}Size") or 0) for part in document.iterfind("{*}Part"))
            is_more = document.findtext("{*}IsTruncated") == "true"
            marker = document.findtext("{*}NextPartNumberMarker") or "" if is_more else ""
        return size

    def size(self, key: str) -> int:
        return self._head(key).size or 0

    def info(self, key: str) -> Mapping[str, str]:
        return self._head(key).headers

    def status(self, key: str) -> Status:
        answer = self._head(key)
        return Status(answer.size or 0, seconds_of(answer.date) - seconds_of(answer.modified))

    def _head(self, key: str) -> Answer:
        try:
            return self._call("HEAD", key)[0]
        except RefusedError as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            self.page("", most=1)  # the answer to this one says what is wrong: it may be the region
            return self._call("HEAD", key)[0]

    def delete(self, keys: Sequence[str]) -> str:
        listed = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
        body = f"<Delete>{listed}<Quiet>true</Quiet></Delete>".encode()
        checksum = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        _, answer = self._call("POST", "", {"delete": ""}, {"content-md5": checksum}, [body])
        codes = (found.text or "" for found in _parsed(answer).iterfind("{*}Error/{*}Code"))
        return next((code for code in codes if code != DELETED_BEFORE), "")

    def page(self, prefix: str, delimiter: str = "", token: str = "", most: int = 1000) -> Page:
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix, "max-keys": str(most)}
        query |= {name: value for name, value in (("delimiter", delimiter), ("continuation-token", token)) if value}
        answer, body = self._call("GET", "", query)
        document, now = _parsed(body), seconds_of(answer.date)
        contents = document.findall("{*}Contents")
        # Not all servers encode what they list, though they are asked to.
        decoded = unquote_plus if document.findtext("{*}EncodingType") == "url" else str
        is_more = document.findtext("{*}IsTruncated") == "true"
        return Page(
            [decoded(found.findtext("{*}Key") or "") for found in contents],
            [decoded(found.text or "") for found in document.iterfind("{*}CommonPrefixes/{*}Prefix")],
            document.findtext("{*}NextContinuationToken") or "" if is_more else "",
            [_status(found, now) for found in contents],
        )

    def renew(self) -> bool:
        """As ``S3Client``; the environment's are those of the process's start."""
        return False

    def close(self) -> None:
        self._server.drop_idle()

    def _call(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] = _NO_QUERY,
        headers: Mapping[str, str] = NO_HEADERS,
        body: Sequence[Buffer] = (),
        *,
        is_slow: bool = False,
    ) -> tuple[Answer, bytes]:
        """Sends a request, and receives all of its answer."""
        request = _Request(method, key, query, headers, body)
        is_long = is_slow or sum(map(len, body)) > _SHORT_BYTES
        return received(lambda seconds: self._send(request, seconds), is_long=is_long)

    def _send(self, request: _Request, seconds: float) -> Answer:
        """Sends a request; its answer is a success.

        Raises:
            RefusedError: It is none.
            NoAnswerError: There is none.
        """
        regions: list[str] = []
        for _ in range(_MOST_CORRECTIONS):
            region, ahead = self._region, self._ahead  # another thread may correct them in the meantime
            answer = self._signed(request, seconds)
            if answer.status in _SUCCESS:
                return answer
            refusal, expected = _refusal(answer.status, answer.body(), answer.date)
            if expected not in {"", region}:
                regions.append(expected)
                self._region = expected  # servers other than AWS have one of any name, and most users set none
            elif is_of_clock(refusal.code, answer.date, ahead):
                self._ahead = seconds_ahead(answer.date)
                _log.debug("The server's clock is %.0f s ahead of this machine's.", self._ahead)
            else:
                refusal.date = "" if ahead else refusal.date  # the clock is not the reason
                raise refusal
        raise _inconsistent(refusal, regions)

    def _signed(self, request: _Request, seconds: float) -> Answer:
        method, body = request.method, request.body
        path, text = path_of(self._bucket, request.key), query_of(request.query)
        # Over TLS, the connection protects the body.
        payload = UNSIGNED if self._server.scheme == "https" else digest(body)
        sent = {"host": self._server.netloc, **self._always, **request.headers}
        sent = signed(method, path, text, sent, payload, self._keys, self._region, time.time() + self._ahead)
        if method in {"PUT", "POST"}:
            sent["content-length"] = str(sum(len(part) for part in body))
        url = f"{path}?{text}" if text else path
        return self._server.exchange(method, url, sent, body, seconds)


def again(call: Callable[[float], _Result]) -> _Result:
    """Calls it again while the server can't be reached or can't cope, a few times.

    Args:
        call: Called with the seconds to wait for the answer.
    """
    *earlier, last = ANSWER_SECONDS
    for number, seconds in enumerate(earlier):
        try:
            return call(seconds)
        except NoAnswerError:
            pass
        except RefusedError as error:
            if error.status not in _OVERLOADED:
                raise
        time.sleep(JITTER.random() * 2**number)
    return call(last)


def received(send: Callable[[float], Answer], *, is_long: bool = False) -> tuple[Answer, bytes]:
    """Sends a request, again where ``again`` does, and receives all of its answer.

    Args:
        send: Sends it, with the seconds to wait for the answer.
        is_long: Whether the server may need long before it answers.
    """

    def call(seconds: float) -> tuple[Answer, bytes]:
        answer = send(READ_SECONDS if is_long else seconds)
        return answer, answer.body()

    return again(call)


def _refusal(status: int, body: bytes, date: str = "") -> tuple[RefusedError, str]:
    """The error of an answer, and the region that the server expects, where it says so."""
    from xml.etree.ElementTree import ParseError  # noqa: PLC0415  most processes parse no XML

    try:
        document = _parsed(body)
    except ParseError:  # the answer to HEAD has no body, and a proxy's is a page
        return RefusedError(str(status), status, http.client.responses.get(status, ""), date), ""
    code, message = (document.findtext(f"{{*}}{name}") or "" for name in ("Code", "Message"))
    region = document.findtext("{*}Region") or "" if code == "AuthorizationHeaderMalformed" else ""
    return RefusedError(code or str(status), status, message, date), region


def _status(entry: Element, now: float) -> Status:
    """The properties of an object in a listing; ``now`` is the server's time."""
    return Status(int(entry.findtext("{*}Size") or 0), age_of(entry.findtext("{*}LastModified") or "", now))


def _inconsistent(refusal: RefusedError, regions: Sequence[str]) -> RefusedError:
    """The error of a server that refuses what it has asked for."""
    asked = f"the regions {', '.join(regions)} in turn" if regions else "another time each time"
    text = f"the server refuses each request and expects {asked}; there may be several servers behind the endpoint"
    return RefusedError(refusal.code, refusal.status, text)


def _parsed(document: bytes) -> Element:
    from xml.etree.ElementTree import fromstring  # noqa: PLC0415  as above

    return fromstring(document)  # noqa: S314  expat limits entities; it is the server that has the data


def _text(document: bytes, name: str) -> str:
    return _parsed(document).findtext(f"{{*}}{name}") or ""
