"""A proxy between pods and their S3 server, which can hold up the commits of tasks, and let keys expire."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.kind.conftest import Namespace
from tests.kind.own_s3 import address_of_node
from tests.support import wait_for

_COMMIT = re.compile(r"/tasks/(\w+/[\d.]+)/commit\.json")
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
_HOP = {"connection", "content-length", "transfer-encoding"}


class CommitProxy:
    """Passes on requests; a task's first commit is held, before or after the server has it.

    Args:
        upstream: URL of the S3 server as seen from this machine.
        before: Tasks whose first commit is held before the server has it.
        after: Tasks of whose first commit only the answer is held.
    """

    def __init__(self, upstream: str, before: set[str], after: set[str]) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.before = before
        self.after = after
        self.held: set[str] = set()
        self.keys_expired = threading.Event()
        self.released = threading.Event()
        self._lock = threading.Lock()

    def wait_for(self, tasks: set[str], seconds: float = 90) -> None:
        """Wait until the commits of these tasks are held."""
        wait_for(lambda: tasks <= self.held, seconds)

    def hold(self, path: str) -> None:
        """Hold the first commit of a task until all of them are released."""
        task = _COMMIT.search(path)
        if task is None:
            return
        with self._lock:
            is_first = task[1] not in self.held
            self.held.add(task[1])
        if is_first:
            self.released.wait()

    def is_one_of(self, tasks: set[str], method: str, path: str) -> bool:
        """Report if a request is the commit of one of these tasks."""
        found = _COMMIT.search(path)
        return method == "PUT" and found is not None and found[1] in tasks


@contextmanager
def commit_proxy(namespace: Namespace, *, before: set[str], after: set[str]) -> Iterator[tuple[CommitProxy, str]]:
    """A running proxy, and its URL for pods."""
    proxy = CommitProxy(namespace.environment["K8SFLOW_ENDPOINT"], before, after)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer((address_towards(address_of_node(namespace)), 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy, f"http://{server.server_address[0]!s}:{server.server_address[1]}"
    finally:
        proxy.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: CommitProxy

    def _forward(self) -> None:
        proxy, body = self.proxy, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if proxy.is_one_of(proxy.before, self.command, self.path):
            proxy.hold(self.path)
        if proxy.keys_expired.is_set():
            self._answer(400, [], _EXPIRED)
            return
        connection = http.client.HTTPConnection(proxy.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if proxy.is_one_of(proxy.after, self.command, self.path):
            proxy.hold(self.path)
        self._answer(answer.status, answer.getheaders(), content)

    def _answer(self, status: int, headers: Sequence[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815  the names of http.server

    def handle(self) -> None:
        """Serve a connection, which a killed pod may have left."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def address_towards(host: str) -> str:
    """This machine's address in the network of another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 80))
        return str(probe.getsockname()[0])
