"""An S3 server on its bad days: it delays, drops, cuts off, refuses, or doesn't find what was just written."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.recording import Answer, Handler, served

FAULTS = ("delay", "drop", "lost answer", "cut answer", "cut request", "500", "503", "403", "404 after a write")
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_ERRORS = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied", "404": "NoSuchKey"}
_UNSEEN_SECONDS = 1.0


@dataclass
class Faults:
    """The faults of a server: each request has one with a given probability, but no request twice in a row.

    Args:
        kinds: The kinds, of ``FAULTS``.
        seed: Seed of the choice.
        probability: The probability.
    """

    kinds: Sequence[str] = FAULTS
    seed: int = 0
    probability: float = 0.2
    made: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._last: set[tuple[str, str]] = set()
        self._written: dict[str, float] = {}

    def choose(self, method: str, target: str) -> str:
        """The fault of a request, or an empty string."""
        path = urlsplit(target).path
        with self._lock:
            if "404 after a write" in self.kinds and self._is_unseen(method, path):
                return self._counted("404 after a write")
            if (method, target) in self._last or self._random.random() >= self.probability:
                self._last.discard((method, target))
                return ""
            kind = self._random.choice(self.kinds)
            if kind == "404 after a write" or (kind == "cut answer" and method != "GET"):
                return ""
            self._last.add((method, target))
            return self._counted(kind)

    def written(self, target: str) -> None:
        """Note that an object exists now."""
        with self._lock:
            self._written.setdefault(urlsplit(target).path, time.monotonic())

    def _is_unseen(self, method: str, path: str) -> bool:
        since = self._written.get(path)
        return method in {"GET", "HEAD"} and since is not None and time.monotonic() - since < _UNSEEN_SECONDS

    def _counted(self, kind: str) -> str:
        self.made[kind] += 1
        return kind


class _Faulty(Handler):
    faults: Faults

    def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
        fault = self.faults.choose(self.command, self.path)
        if fault == "cut request":
            self.rfile.read(int(self.headers.get("content-length", 0)) // 2)
        if fault in {"drop", "cut request"}:
            self.close_connection = True
            return
        body = self.body()
        if status := fault[:3] if fault[:3] in _ERRORS else "":
            self._refuse(status)
            return
        if fault == "delay":
            time.sleep(1.5)
        answer = self.forward(body)
        if self.command == "PUT" and answer.status == 200 and "uploadId" not in self.path:
            self.faults.written(self.path)
        if fault == "lost answer":
            self.close_connection = True
        elif fault == "cut answer":
            self.reply(answer, len(answer.content) // 2)
            self.close_connection = True
        else:
            self.reply(answer)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815  the names that http.server calls

    def _refuse(self, status: str) -> None:
        error = f"<Error><Code>{_ERRORS[status]}</Code><Message>as the test asks</Message></Error>".encode()
        content = b"" if self.command == "HEAD" else error
        self.reply(Answer(int(status), [("Content-Length", str(len(content)))], content))


@contextmanager
def faulty(endpoint: str, faults: Faults) -> Iterator[str]:
    """Start a server with faults in front of an S3 server; yields its URL."""
    values = {"requests": [], "upstream": urlsplit(endpoint).netloc, "ignored": frozenset(), "faults": faults}
    with served(type("Faulty", (_Faulty,), values)) as url:
        yield url
