"""Requests to a container of Azure's Blob Storage (https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api).

The client has the errors and the codes of ``S3Client``, so the store above it is the same. A large object is written in
blocks; those of an upload that nobody ends are invisible, and Azure deletes them after a week.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode, urlsplit

from k8sflow import urls
from k8sflow.access_tokens import KeptToken
from k8sflow.azure_account import AzureAccount
from k8sflow.errors import AccessError, ConfigurationError
from k8sflow.http_dates import seconds_ahead, seconds_of
from k8sflow.storage.azure_credentials import find
from k8sflow.storage.objects import Buffer
from k8sflow.storage.s3_client import NO_HEADERS, Page, RefusedError, Status, Upload
from k8sflow.storage.s3_connections import Answer, ConnectionPool, HttpReading
from k8sflow.storage.s3_errors import is_of_clock
from k8sflow.storage.s3_http import again, received

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_VERSION = "2021-12-02"
_IF_NEW = {"if-none-match": "*"}
_BLOB = {"x-ms-blob-type": "BlockBlob"}
_NO_QUERY: Mapping[str, str] = {}
_SUCCESS = range(200, 300)
_SHORT_BYTES = 64 << 10
_EARLIER_TRIES = 2
# The headers that are signed besides those with x-ms-, in their order; the date is in one of those
# (https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key).
_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)
# Azure's codes (https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes) in S3's.
_CODES: Mapping[str, str] = {
    "BlobNotFound": "NoSuchKey",
    "ResourceNotFound": "NoSuchKey",
    "ContainerNotFound": "NoSuchBucket",
    "BlobAlreadyExists": "PreconditionFailed",
    "ConditionNotMet": "PreconditionFailed",
    "InvalidRange": "InvalidRange",
    "InvalidBlockList": "NoSuchUpload",
}
_FORBIDDEN = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


class AzureClient:
    """The requests to a container, as ``StoreClient``.

    Args:
        container: The container.
        account: Its account.
        connections: How many are kept open.
        environment: The environment, which says where credentials are if the account has none.
        ca_bundle: As of ``S3Options``.

    Raises:
        ConfigurationError: The environment has a proxy, or the account's address is invalid.
    """

    def __init__(
        self,
        container: str,
        account: AzureAccount,
        connections: int,
        environment: Mapping[str, str] = os.environ,
        ca_bundle: str | None = None,
    ) -> None:
        try:
            parts = urlsplit(account.endpoint)
            self._server = ConnectionPool(f"{parts.scheme}://{parts.netloc}", connections, ca_bundle)
        except ValueError as error:
            raise _invalid(account) from error
        if not self._server.is_plain or parts.query:
            raise _invalid(account)
        if not parts.path:  # an emulator's has the account
            self._server.refuse_proxy(environment, "Azure's storage")
        self._container = container
        self._path = f"{parts.path}/{quote(container, safe='$')}"
        self._account = account
        self._connections = connections
        self._tokens = None if account.key or account.sas else KeptToken(find(environment))
        self._ahead = 0.0  # seconds by which the server's clock is ahead of this machine's, once it has refused that

    def read(self, key: str, span: str = "", etag: str = "") -> HttpReading:
        headers = {name: value for name, value in (("range", span), ("if-match", etag)) if value}
        return HttpReading(again(lambda seconds: self._send("GET", key, _NO_QUERY, headers, (), seconds)))

    def write(self, key: str, body: Buffer, *, is_new: bool = False) -> None:
        self._call("PUT", key, headers={**_BLOB, **(_IF_NEW if is_new else {})}, body=[body])

    def begin_upload(self, key: str) -> str:  # noqa: ARG002  as of StoreClient
        return uuid.uuid4().hex

    def upload_part(self, key: str, upload: str, number: int, body: Sequence[Buffer]) -> str:
        block = base64.b64encode(f"{upload}-{number:05}".encode()).decode()
        self._call("PUT", key, {"comp": "block", "blockid": block}, body=body)
        return block

    def end_upload(self, key: str, upload: str, etags: Sequence[str]) -> None:  # noqa: ARG002  the blocks' names have it
        listed = "".join(f"<Latest>{block}</Latest>" for block in etags)
        document = f"<?xml version='1.0' encoding='utf-8'?><BlockList>{listed}</BlockList>"
        self._call("PUT", key, {"comp": "blocklist"}, body=[document.encode()], is_slow=True)

    def abandon_upload(self, key: str, upload: str) -> None:
        """As ``StoreClient``; there is no request that deletes blocks."""

    def uploads(self, prefix: str, token: str = "") -> tuple[Sequence[Upload], str | None]:  # noqa: ARG002  as of StoreClient
        """As ``StoreClient``; Azure deletes the blocks of uploads that nobody ends."""
        return (), None

    def upload_size(self, key: str, upload: str) -> int:  # noqa: ARG002  as of StoreClient
        return 0

    def size(self, key: str) -> int:
        return self._call("HEAD", key)[0].size or 0

    def status(self, key: str) -> Status:
        answer, _ = self._call("HEAD", key)
        return Status(answer.size or 0, seconds_of(answer.date) - seconds_of(answer.modified))

    def delete(self, keys: Sequence[str]) -> str:
        with ThreadPoolExecutor(self._connections) as pool:
            return next(filter(None, pool.map(self._delete, keys)), "")

    def _delete(self, key: str) -> str:
        try:
            self._call("DELETE", key, headers={"x-ms-delete-snapshots": "include"})
        except RefusedError as error:
            return "" if error.code == "NoSuchKey" else error.code
        return ""

    def page(self, prefix: str, delimiter: str = "", token: str = "", most: int = 1000) -> Page:
        query = {"restype": "container", "comp": "list", "maxresults": str(most)}
        query |= {n: value for n, value in (("prefix", prefix), ("delimiter", delimiter), ("marker", token)) if value}
        answer, body = self._call("GET", "", query)
        document, now = _parsed(body), seconds_of(answer.date)
        # An account with a hierarchical namespace lists its directories too.
        blobs = [
            found
            for found in document.iterfind("Blobs/Blob")
            if found.findtext("Properties/ResourceType") != "directory"
        ]
        return Page(
            [_name(found) for found in blobs],
            [_name(found) for found in document.iterfind("Blobs/BlobPrefix")],
            document.findtext("NextMarker") or "",
            [_status(found, now) for found in blobs],
        )

    def renew(self) -> bool:
        """As ``StoreClient``; tokens are renewed before they end."""
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
        is_long = is_slow or sum(map(len, body)) > _SHORT_BYTES
        return received(lambda seconds: self._send(method, key, query, headers, body, seconds), is_long=is_long)

    def _send(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Sequence[Buffer],
        seconds: float,
    ) -> Answer:
        """Sends a request; its answer is a success.

        Raises:
            AccessError: The credentials are refused.
            RefusedError: It is none.
            NoAnswerError: There is none.
        """
        if "\\" in key:
            raise ValueError("Azure takes a backslash in a name for a slash")
        path = f"{self._path}/{quote(key)}" if key else self._path
        for _ in range(_EARLIER_TRIES):
            ahead, token = self._ahead, self._tokens and self._tokens.token
            answer = self._server.exchange(
                method, self._url(path, query), self._headers(method, path, query, headers, body), body, seconds
            )
            if answer.status in _SUCCESS:
                return answer
            content = answer.body()
            if is_of_clock(str(answer.status), answer.date, ahead):
                self._ahead = seconds_ahead(answer.date)
            elif answer.status == HTTPStatus.UNAUTHORIZED and self._tokens and token is not None:  # it was revoked
                self._tokens.forget()
            else:
                break
        raise self._refusal(answer, content)

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        text = "&".join(filter(None, (urlencode(query), self._account.sas if not self._account.key else "")))
        return f"{path}?{text}" if text else path

    def _headers(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: Sequence[Buffer]
    ) -> dict[str, str]:
        """All headers, with the signature or the token."""
        date = formatdate(time.time() + self._ahead, usegmt=True)
        sent = {"host": self._server.netloc, "x-ms-version": _VERSION, "x-ms-date": date, **headers}
        if method == "PUT":
            sent["content-length"] = str(sum(map(len, body)))
        if self._account.key:
            sent["authorization"] = f"SharedKey {self._account.name}:{self._signature(method, path, query, sent)}"
        elif self._tokens is not None:
            sent["authorization"] = f"Bearer {self._tokens.value()}"
        return sent

    def _signature(self, method: str, path: str, query: Mapping[str, str], sent: Mapping[str, str]) -> str:
        lines = [method, *(sent.get(name, "") for name in _SIGNED)]
        lines[1 + _SIGNED.index("content-length")] = sent.get("content-length", "").removeprefix("0")
        lines += [f"{name}:{sent[name]}" for name in sorted(sent) if name.startswith("x-ms-")]
        lines += [f"/{self._account.name}{path}", *(f"{name}:{query[name]}" for name in sorted(query))]
        text = "\n".join(lines).encode()
        return base64.b64encode(hmac.digest(base64.b64decode(self._account.key), text, hashlib.sha256)).decode()

    def _refusal(self, answer: Answer, body: bytes) -> Exception:
        code = answer.headers.get("x-ms-error-code", "")
        message = _message(body) or http.client.responses.get(answer.status, "")
        if answer.status in _FORBIDDEN:
            where = f"the container {self._container} of the account {self._account.name}"
            if is_of_clock("403", answer.date, self._ahead):
                return RefusedError("RequestTimeTooSkewed", answer.status, message, answer.date)
            return AccessError(
                f"Azure refuses access to {where}: {message} ({code or answer.status})",
                cause="The key or the signature is wrong or has expired, or the identity lacks a role.",
                advice="Check AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN (it needs racwdl) or "
                "AZURE_STORAGE_CONNECTION_STRING, or grant the identity the role Storage Blob Data Contributor.",
            )
        if not code and answer.status == HTTPStatus.NOT_FOUND:
            code = "BlobNotFound"  # as a proxy answers
        return RefusedError(_CODES.get(code, code) or str(answer.status), answer.status, message, answer.date)


def _invalid(account: AzureAccount) -> ConfigurationError:
    return ConfigurationError(
        "the address of the storage account of Azure is "
        f"{urls.shown(account.endpoint)!r}, which is not the URL of a server.",
        advice="Correct BlobEndpoint in AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_SERVICE_ENDPOINT: "
        "https://ACCOUNT.blob.core.windows.net.",
    )


def _message(body: bytes) -> str:
    from xml.etree.ElementTree import ParseError  # noqa: PLC0415  most processes parse no XML

    try:
        return (_parsed(body).findtext("Message") or "").partition("\n")[0]
    except ParseError:
        return ""


def _parsed(document: bytes) -> Element:
    from xml.etree.ElementTree import fromstring  # noqa: PLC0415  as above

    return fromstring(document.removeprefix(b"\xef\xbb\xbf"))  # noqa: S314  expat limits entities; the server has the data


def _name(entry: Element) -> str:
    found = entry.find("Name")
    text = (found.text or "") if found is not None else ""
    return unquote(text) if found is not None and found.get("Encoded") == "true" else text


def _status(entry: Element, now: float) -> Status:
    """The properties of an object in a listing; ``now`` is the server's time."""
    written = seconds_of(entry.findtext("Properties/Last-Modified") or "")
    return Status(int(entry.findtext("Properties/Content-Length") or 0), now - written)
