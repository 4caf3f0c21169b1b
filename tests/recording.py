"""A server between a client and an S3 server, which records the requests; with TLS, or as an HTTP proxy."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from k8sflow.storage.s3_signing import Keys, signed
from tests.s3server import KEYS

_OF_CONNECTION = {"transfer-encoding", "connection", "content-length"}


@dataclass(frozen=True)
class Request:
    """A request that was received.

    Args:
        method: The HTTP method.
        target: What was asked for; a proxy gets a whole URL.
        headers: The headers, by lower-case names.
    """

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """The answer of the S3 server.

    Args:
        status: The HTTP status.
        headers: The headers, without those of the connection.
        content: The body.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    content: bytes


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes requests on to an S3 server.

    Args:
        requests: The requests so far.
        upstream: Host and port of the S3 server.
        ignored: Headers that are not passed on, as of a server that doesn't know them.
    """

    protocol_version = "HTTP/1.1"
    requests: list[Request]
    upstream: str
    ignored: frozenset[str]

    def do_GET(self) -> None:
        self.reply(self.forward(self.body()))

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815  the names that http.server calls

    def sent_headers(self) -> dict[str, str]:
        """The headers of the request, by lower-case names."""
        return {name.lower(): value for name, value in self.headers.items()}

    def body(self) -> bytes:
        """Receive the request's body, and record the request."""
        headers = self.sent_headers()
        self.requests.append(Request(self.command, self.path, headers))
        return self.rfile.read(int(headers.get("content-length", 0)))

    def forward(self, body: bytes) -> Answer:
        """Ask the S3 server."""
        parts = urlsplit(self.path)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            sent = {name: value for name, value in self.sent_headers().items() if name != "expect"}
            if self.ignored & sent.keys():  # the signature is also of these headers
                again = self._signed(parts.path, parts.query, sent["x-amz-content-sha256"])
                sent = {**again, "content-length": str(len(body))}
            connection.request(self.command, target, body=body or None, headers=sent)
            found = connection.getresponse()
            content = found.read()
            headers = [(name, value) for name, value in found.getheaders() if name.lower() not in _OF_CONNECTION]
            length = found.headers.get("Content-Length") or str(len(content))  # that of HEAD is the object's
            return Answer(found.status, [*headers, ("Content-Length", length)], content)
        finally:
            connection.close()

    def reply(self, answer: Answer, bytes_sent: int | None = None) -> None:
        """Send an answer; of its body the first ``bytes_sent`` if that is given."""
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):  # the client didn't wait for all of it
            self.end_headers()
            self.wfile.write(answer.content[:bytes_sent])

    def _signed(self, path: str, query: str, digest: str) -> dict[str, str]:
        keys = Keys(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
        return signed(self.command, path, query, {"host": self.upstream}, digest, keys, "us-east-1", time.time())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(handler: type[Handler], tls: Path | None = None) -> Iterator[str]:
    """Start a server of these requests; yields its URL.

    Args:
        handler: The class with all its values.
        tls: A folder for ``ca.pem``, the certificate of the server; None for a server without TLS.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*_certificate(tls))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def recording(
    endpoint: str, *, tls: Path | None = None, ignored: frozenset[str] = frozenset()
) -> Iterator[tuple[str, list[Request]]]:
    """Start the server in front of an S3 server; yields its URL, and the list of the requests so far.

    Args:
        endpoint: The S3 server.
        tls: A folder for ``ca.pem``, the certificate of the server; None for a server without TLS.
        ignored: Headers that are not passed on, as of a server that doesn't know them.
    """
    requests: list[Request] = []
    values = {"requests": requests, "upstream": urlsplit(endpoint).netloc, "ignored": ignored}
    with served(type("Recording", (Handler,), values), tls) as url:
        yield url, requests


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that only its own file verifies, and its key."""
    certificate, key = folder / "ca.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
