"""Signed S3 requests with only the standard library, to check that the server answers real ones.

The harness runs before the project's virtual environment exists, so it can't use boto3. The signature is AWS's
version 4: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
import urllib.parse
from dataclasses import dataclass

CONFLICT = 409
TIMEOUT_SECONDS = 5.0
SIGNED_HEADERS = "host;x-amz-content-sha256;x-amz-date"


@dataclass(frozen=True)
class S3Server:
    """An S3 server and the keys to it."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket if it doesn't exist."""
        status, body = self._request("PUT", f"/{bucket}", b"")
        if status not in (http.client.OK, CONFLICT):
            raise OSError(f"PUT /{bucket}: HTTP {status}: {body[:200]!r}")

    def check(self, bucket: str, name: str) -> None:
        """Write an object and read it again.

        Raises:
            OSError: The server can't be reached, or refused, or returned something else.
        """
        path, content = f"/{bucket}/{name}", str(time.time_ns()).encode()
        self.put(path, content)
        if (answer := self.get(path)) != content:
            raise OSError(f"GET {path}: {answer[:200]!r} instead of what was written")

    def put(self, path: str, content: bytes) -> None:
        """Write an object at ``/bucket/name``."""
        self._succeed("PUT", path, content)

    def get(self, path: str) -> bytes:
        """Return the content of the object at ``/bucket/name``."""
        return self._succeed("GET", path, b"")

    def _succeed(self, method: str, path: str, body: bytes) -> bytes:
        status, answer = self._request(method, path, body)
        if status != http.client.OK:
            raise OSError(f"{method} {path}: HTTP {status}: {answer[:200]!r}")
        return answer

    def _request(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        host = urllib.parse.urlsplit(self.endpoint).netloc
        connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
        try:
            headers = self.signed_headers(method, path, body, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:  # e.g. the port is forwarded, and no server is behind it yet
            raise OSError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def signed_headers(self, method: str, path: str, body: bytes, now: str) -> dict[str, str]:
        """Return the headers of a request at the time ``now`` (``YYYYMMDDTHHMMSSZ``), signature included."""
        digest = hashlib.sha256(body).hexdigest()
        headers = {
            "host": urllib.parse.urlsplit(self.endpoint).netloc,
            "x-amz-content-sha256": digest,
            "x-amz-date": now,
        }
        lines = [f"{name}:{value}" for name, value in headers.items()]
        request = "\n".join([method, path, "", *lines, "", SIGNED_HEADERS, digest])
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{self.secret_key}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signed = f"Credential={self.access_key}/{scope}, SignedHeaders={SIGNED_HEADERS}, Signature={key.hex()}"
        return {**headers, "authorization": f"AWS4-HMAC-SHA256 {signed}"}
