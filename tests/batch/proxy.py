"""A proxy of AWS Batch, for what a server does on its bad days."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@contextmanager
def proxied(
    upstream: str, *, throttles: bool = False, loses_submit: bool = False, logged_out: threading.Event | None = None
) -> Iterator[tuple[str, Counter[str]]]:
    """A proxy of AWS Batch, with its counts.

    Args:
        upstream: The URL of the server.
        throttles: Whether it refuses two of three requests.
        loses_submit: Whether it drops the first answer to a submit.
        logged_out: While it is set, the login of each request has expired.
    """
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                calls["all"] += 1
                is_refused = throttles and calls["all"] % 3 != 0
            if logged_out is not None and logged_out.is_set():
                calls["logged out"] += 1
                self._answer(403, b'{"message": "The security token is expired"}', "ExpiredTokenException")
                return
            if is_refused:
                calls["refused"] += 1
                self._answer(429, b'{"message": "Too Many Requests"}', "TooManyRequestsException")
                return
            calls[f"POST {self.path}"] += 1
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=30)
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if loses_submit and self.path.endswith("submitjob") and calls["lost"] == 0:
                calls["lost"] += 1
                self.close_connection = True
                return
            self._answer(answer.status, content, answer.getheader("x-amzn-errortype") or "")

        def _answer(self, status: int, content: bytes, error: str) -> None:
            self.send_response(status)
            if error:
                self.send_header("x-amzn-errortype", error)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
