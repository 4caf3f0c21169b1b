"""Requests to a bucket of Google Cloud Storage, by its JSON API (https://cloud.google.com/storage/docs/json_api).

The client has the errors and the codes of ``S3Client``, so the store above it is the same. A large object is written in
parts, each an object of its own beside it, that are then composed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from k8sflow import urls
from k8sflow.access_tokens import KeptToken
from k8sflow.errors import AccessError, ConfigurationError, K8sflowError
from k8sflow.google_credentials import find
from k8sflow.http_dates import seconds_of
from k8sflow.roots import EMULATOR_OF_GOOGLE, SERVER_OF_GOOGLE
from k8sflow.storage.objects import Buffer
from k8sflow.storage.s3_client import (
    NO_HEADERS,
    PARALLEL_PARTS,
    NoAnswerError,
    Page,
    RefusedError,
    Status,
    Upload,
)
from k8sflow.storage.s3_connections import Answer, ConnectionPool, HttpReading
from k8sflow.storage.s3_errors import age_of
from k8sflow.storage.s3_http import again, received

_BINARY = "application/octet-stream"
_JSON = "application/json"
_NEW = {"ifGenerationMatch": "0"}
# https://cloud.google.com/storage/docs/composite-objects
_MOST_COMPOSED = 32
_PART = ".part-"
_SUCCESS = range(200, 300)
_SHORT_BYTES = 64 << 10
# They mean what S3's SlowDown means; the second one is also that of an object which is written more often than once a
# second (https://cloud.google.com/storage/docs/retry-strategy).
_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_CODES: Mapping[int, str] = {
    HTTPStatus.NOT_FOUND: "NoSuchKey",
    HTTPStatus.PRECONDITION_FAILED: "PreconditionFailed",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "InvalidRange",
}


class GcsClient:
    """The requests to a bucket, as ``StoreClient``.

    Args:
        bucket: The bucket.
        endpoint: URL of the server.
        connections: How many are kept open.
        environment: The environment, which says where credentials are.
        ca_bundle: As of ``S3Options``.

    Raises:
        AccessError: The credentials can't be read.
        ConfigurationError: The environment has a proxy, or an invalid address.
    """

    def __init__(
        self,
        bucket: str,
        endpoint: str,
        connections: int,
        environment: Mapping[str, str] = os.environ,
        ca_bundle: str | None = None,
    ) -> None:
        try:
            self._server = ConnectionPool(endpoint, connections, ca_bundle)
        except ValueError as error:
            raise _invalid(endpoint) from error
        if not self._server.is_plain:
            raise _invalid(endpoint)
        if endpoint == SERVER_OF_GOOGLE:
            self._server.refuse_proxy(environment, "Google Cloud Storage")
        self._bucket = bucket
        self._name = quote(bucket, safe="")
        self._connections = connections
        self._tokens = None if endpoint != SERVER_OF_GOOGLE else KeptToken(find(environment))

    def read(self, key: str, span: str = "", etag: str = "") -> HttpReading:
        sent = {"range": span} if span else {}
        answer = again(lambda seconds: self._send("GET", self._object(key, {"alt": "media"}), sent, (), seconds))
        if etag and answer.etag != etag:
            answer.drop()
            raise RefusedError("PreconditionFailed", HTTPStatus.PRECONDITION_FAILED, "the object was replaced")
        return HttpReading(answer)

    def write(self, key: str, body: Buffer, *, is_new: bool = False) -> None:
        self._insert(key, [body], is_new=is_new)

    def _insert(self, key: str, body: Sequence[Buffer], *, is_new: bool = False) -> None:
        query = urlencode({"uploadType": "media", "name": key, **(_NEW if is_new else {})}, quote_via=quote)
        self._call("POST", f"/upload/storage/v1/b/{self._name}/o?{query}", {"content-type": _BINARY}, body)

    def begin_upload(self, key: str) -> str:  # noqa: ARG002  as of StoreClient
        return uuid.uuid4().hex

    def upload_part(self, key: str, upload: str, number: int, body: Sequence[Buffer]) -> str:
        part = f"{key}{_PART}{upload}-{number:05}"
        self._insert(part, body)
        return part

    def end_upload(self, key: str, upload: str, etags: Sequence[str]) -> None:
        """Composes the parts, in several rounds if they are many, and deletes them."""
        made = list(etags)
        names = made
        for level in range(8):
            if len(names) <= _MOST_COMPOSED:
                break
            groups = [names[start : start + _MOST_COMPOSED] for start in range(0, len(names), _MOST_COMPOSED)]
            names = [f"{key}{_PART}{upload}-{level}-{number:05}" for number in range(len(groups))]
            made += names
            with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
                list(pool.map(self._compose, names, groups))
        self._compose(key, names)
        with contextlib.suppress(RefusedError, NoAnswerError, K8sflowError):  # gc deletes what remains
            self.delete(made)

    def _compose(self, key: str, names: Sequence[str]) -> None:
        document = {"sourceObjects": [{"name": name} for name in names], "destination": {"contentType": _BINARY}}
        url = self._object(key, action="/compose")
        self._call("POST", url, {"content-type": _JSON}, [json.dumps(document).encode()], is_slow=True)

    def abandon_upload(self, key: str, upload: str) -> None:
        page = self.page(f"{key}{_PART}{upload}-")
        self.delete(page.keys)

    def uploads(self, prefix: str, token: str = "") -> tuple[Sequence[Upload], str | None]:  # noqa: ARG002  as of StoreClient
        """As ``StoreClient``; their parts are objects."""
        return (), None

    def upload_size(self, key: str, upload: str) -> int:  # noqa: ARG002  as of StoreClient
        return 0

    def size(self, key: str) -> int:
        return self.status(key).size

    def status(self, key: str) -> Status:
        answer, body = self._call("GET", self._object(key, {"fields": "size,timeCreated"}))
        return _status(json.loads(body), seconds_of(answer.date))

    def delete(self, keys: Sequence[str]) -> str:
        with ThreadPoolExecutor(self._connections) as pool:
            return next(filter(None, pool.map(self._delete, keys)), "")

    def _delete(self, key: str) -> str:
        try:
            self._call("DELETE", self._object(key))
        except RefusedError as error:
            return "" if error.code == "NoSuchKey" else error.code
        return ""

    def page(self, prefix: str, delimiter: str = "", token: str = "", most: int = 1000) -> Page:
        query = {"prefix": prefix, "maxResults": str(most), "delimiter": delimiter, "pageToken": token}
        query["fields"] = "items(name,size,timeCreated),prefixes,nextPageToken"
        text = urlencode({name: value for name, value in query.items() if value}, quote_via=quote)
        try:
            answer, body = self._call("GET", f"/storage/v1/b/{self._name}/o?{text}")
        except RefusedError as error:
            if error.code != "NoSuchKey":
                raise
            raise RefusedError("NoSuchBucket", error.status, str(error)) from error
        document, now = json.loads(body), seconds_of(answer.date)
        items = document.get("items", [])
        return Page(
            [item["name"] for item in items],
            document.get("prefixes", []),
            document.get("nextPageToken", ""),
            [_status(item, now) for item in items],
        )

    def renew(self) -> bool:
        """As ``StoreClient``; tokens are renewed before they end."""
        return False

    def close(self) -> None:
        self._server.drop_idle()

    def _object(self, key: str, query: Mapping[str, str] = NO_HEADERS, action: str = "") -> str:
        text = f"?{urlencode(query)}" if query else ""
        return f"/storage/v1/b/{self._name}/o/{quote(key, safe='')}{action}{text}"

    def _call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] = NO_HEADERS,
        body: Sequence[Buffer] = (),
        *,
        is_slow: bool = False,
    ) -> tuple[Answer, bytes]:
        """Sends a request, and receives all of its answer."""
        is_long = is_slow or sum(map(len, body)) > _SHORT_BYTES
        return received(lambda seconds: self._send(method, url, headers, body, seconds), is_long=is_long)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Sequence[Buffer], seconds: float
    ) -> Answer:
        """Sends a request; its answer is a success.

        Raises:
            AccessError: The credentials are refused.
            RefusedError: It is none.
            NoAnswerError: There is none.
        """
        sent = {"host": self._server.netloc, **headers}
        if method == "POST":
            sent["content-length"] = str(sum(map(len, body)))
        if self._tokens is not None:
            sent["authorization"] = f"Bearer {self._tokens.value()}"
        answer = self._server.exchange(method, url, sent, body, seconds)
        if answer.status in _SUCCESS:
            return answer
        raise self._refusal(answer.status, answer.body(), answer.date)

    def _refusal(self, status: int, body: bytes, date: str) -> Exception:
        message = _message(body) or http.client.responses.get(status, "")
        if status == HTTPStatus.UNAUTHORIZED:
            if self._tokens is not None:
                self._tokens.forget()
            return AccessError(
                f"Google Cloud Storage doesn't accept the credentials for gs://{self._bucket}: {message}",
                advice="Run `gcloud auth application-default login`, or check GOOGLE_APPLICATION_CREDENTIALS.",
            )
        if status == HTTPStatus.FORBIDDEN:
            return AccessError(
                f"Google Cloud Storage refuses access to gs://{self._bucket}: {message}",
                cause="The credentials lack a role: k8sflow needs storage.objects.list, get, create and delete.",
                advice="Grant the role Storage Object User (roles/storage.objectUser) on the bucket.",
            )
        if status in _BUSY:
            return RefusedError("SlowDown", HTTPStatus.SERVICE_UNAVAILABLE, message, date)
        code = _CODES.get(status)
        if code == "NoSuchKey" and "bucket does not exist" in message:
            code = "NoSuchBucket"
        return RefusedError(code or str(status), status, message, date)


def _invalid(endpoint: str) -> ConfigurationError:
    return ConfigurationError(
        f"{EMULATOR_OF_GOOGLE} is {urls.shown(endpoint)!r}, which is not the address of a server.",
        advice="Use http://host:port.",
    )


def _message(body: bytes) -> str:
    """The message of an error, which is JSON, or a line of text."""
    try:
        document = json.loads(body)
        return str(document["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()[:300]


def _status(item: Mapping[str, Any], now: float) -> Status:
    """The properties of an object; ``now`` is the server's time."""
    return Status(int(item.get("size", 0)), age_of(str(item.get("timeCreated", "")), now))
