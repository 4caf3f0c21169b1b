"""Connections to an S3 server, which are kept for further requests, and the answers that are read from them."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from k8sflow.errors import ConfigurationError
from k8sflow.storage.objects import Buffer
from k8sflow.storage.s3_client import CONNECT_SECONDS, READ_SECONDS, NoAnswerError, RefusedError

_PIECE_BYTES = 1 << 20


class ConnectionPool:
    """The server's address, and its connections that wait for another request."""

    def __init__(self, endpoint: str, connections: int, ca_bundle: str | None = None) -> None:
        parts = urlsplit(endpoint)
        self.scheme = parts.scheme
        self.host = parts.hostname or ""
        self.netloc = parts.netloc
        self.is_plain = self.scheme in {"http", "https"} and bool(self.host) and parts.path in {"", "/"}
        self._port = parts.port
        self._most = connections
        self._ca_bundle = ca_bundle
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, _close_all, self._idle).atexit = False
        self._process = os.getpid()
        self._context: ssl.SSLContext | None = None

    def refuse_proxy(self, environment: Mapping[str, str], what: str) -> None:
        """Refuses an environment whose proxy these connections would not use.

        Args:
            environment: The environment.
            what: The server, for the error.

        Raises:
            ConfigurationError: It has a proxy for the server.
        """
        names = (f"{self.scheme}_proxy", f"{self.scheme.upper()}_PROXY")
        if not (found := next(filter(environment.get, names), "")):
            return
        # Few machines have a proxy.
        from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # noqa: PLC0415

        excluded = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
        if not proxy_bypass_environment(self.netloc, {"no": excluded}):
            raise ConfigurationError(
                f"the environment has a proxy ({found}), and k8sflow only reaches {what} directly.",
                advice=f"Unset {found} for this command, or name {self.host} in NO_PROXY.",
            )

    def connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was used before.

        Raises:
            NoAnswerError: The server can't be reached.
        """
        if self._process != os.getpid():  # a fork, as of parallel_map: the parent uses these
            self._process = os.getpid()
            self.drop_idle()
        with contextlib.suppress(IndexError):
            return self._idle.pop(), True
        made = self._new()
        try:
            made.connect()
        except OSError as error:
            made.close()
            is_of_tls = isinstance(error, ssl.SSLError)
            raise NoAnswerError(reason_of(error), is_unreachable=not is_of_tls) from error
        made.sock.settimeout(READ_SECONDS)
        return made, False

    def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: Sequence[Buffer], seconds: float
    ) -> Answer:
        """Sends a request over one of the connections.

        Args:
            method: The HTTP method.
            url: The path and the query.
            headers: All headers.
            body: The body's pieces.
            seconds: How long to wait for the answer.

        Raises:
            NoAnswerError: There is none.
        """
        while True:
            connection, was_used = self.connection()
            try:
                with contextlib.suppress(BrokenPipeError):  # it may have answered before it has all of the body
                    connection.request(method, url, body=iter(body) if body else None, headers=headers)
                connection.sock.settimeout(seconds)
                response = connection.getresponse()
                if connection.sock is not None:  # the server keeps it open
                    connection.sock.settimeout(READ_SECONDS)
                return Answer(self, connection, response)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if not was_used:
                    raise NoAnswerError(reason_of(error)) from error
                self.drop_idle()  # the server closes them when they are idle for long
            except BaseException:  # a signal in the middle of it
                connection.close()
                raise

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """Takes back a connection whose answer was read."""
        if connection.sock is None or len(self._idle) >= self._most:  # the server has closed it
            connection.close()
        else:
            self._idle.append(connection)

    def drop_idle(self) -> None:
        """Closes the connections that no request uses."""
        _close_all(self._idle)

    def _new(self) -> http.client.HTTPConnection:
        if self.scheme == "http":
            return _PlainConnection(self.host, self._port, timeout=CONNECT_SECONDS)
        self._context = self._context or _tls_context(self._ca_bundle)
        return http.client.HTTPSConnection(self.host, self._port, timeout=CONNECT_SECONDS, context=self._context)


class _PlainConnection(http.client.HTTPConnection):
    """A connection without TLS that looks up its server's name as bytes.

    For a string, Python imports the codec of international names, which takes a task 3 ms.
    """

    def connect(self) -> None:
        try:
            name = cast("str", self.host.encode("ascii"))  # getaddrinfo takes both
        except UnicodeEncodeError:
            name = self.host
        self.sock = socket.create_connection((name, self.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _close_all(idle: list[http.client.HTTPConnection]) -> None:
    while idle:
        with contextlib.suppress(IndexError):  # another thread has taken the last one
            idle.pop().close()


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Trusts the bundle, or else what the system trusts; in an image without certificates, those of botocore."""
    if ca_bundle is not None:
        return ssl.create_default_context(cafile=ca_bundle)
    context = ssl.create_default_context()
    known = ssl.get_default_verify_paths()
    if not (known.cafile or known.capath):
        import botocore  # noqa: PLC0415  only for the path of its certificates

        context.load_verify_locations(Path(botocore.__file__).with_name("cacert.pem"))
    return context


class HttpReading:
    """As ``Reading``."""

    def __init__(self, answer: Answer) -> None:
        if answer.size is None:
            answer.drop()
            raise RefusedError("", answer.status, "the answer doesn't say how long the object is")
        self.size = answer.size
        self.etag = answer.etag
        self._answer = answer

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    def read_into(self, target: memoryview) -> None:
        position = 0
        with self._answer.received() as response:
            while position < self.size and (count := response.readinto(target[position:])):
                position += count
            if position != self.size:
                raise NoAnswerError(f"{self.size - position} bytes of the answer are missing")

    def pieces(self) -> Generator[memoryview, None, None]:
        missing = self.size
        buffer = memoryview(bytearray(min(missing, _PIECE_BYTES)))
        with self._answer.received() as response:
            while missing and (count := response.readinto(buffer[:missing])):
                missing -= count
                yield buffer[:count]
            if missing:
                raise NoAnswerError(f"{missing} bytes of the answer are missing")

    def close(self) -> None:
        self._answer.drop()


class Answer:
    """The answer to a request, of which the body is still to be received."""

    def __init__(
        self, server: ConnectionPool, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        length = response.getheader("Content-Length")
        self.size = None if length is None else int(length)
        self.etag = response.getheader("ETag") or ""
        self.status = response.status
        self.date = response.getheader("Date") or ""
        self.modified = response.getheader("Last-Modified") or ""
        self._server = server
        self._connection = connection
        self._response = response

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; the names are in lower case."""
        return {name.lower(): value for name, value in self._response.getheaders()}

    @contextlib.contextmanager
    def received(self) -> Iterator[http.client.HTTPResponse]:
        """Keeps the connection for another request, if the body was received to its end."""
        try:
            yield self._response
            self._response.read()  # else the end of the body would come before the next answer
        except (OSError, http.client.HTTPException) as error:
            self.drop()
            raise NoAnswerError(reason_of(error)) from error
        except BaseException:
            self.drop()
            raise
        self._server.keep(self._connection)

    def body(self) -> bytes:
        """Receives the body."""
        with self.received() as response:
            return response.read()

    def drop(self) -> None:
        """Closes the connection."""
        self._response.close()
        self._connection.close()


def reason_of(error: BaseException) -> str:
    """The system's reason."""
    if isinstance(error, socket.gaierror):
        return f"its name can't be resolved by DNS ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused, so nothing listens there"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return str(error).rstrip(".") or type(error).__name__
