"""Logs on their way to the store: nobody waits for them, and a store that fails for a while loses nothing."""

from __future__ import annotations

import threading

from k8sflow.errors import StorageError
from k8sflow.task.uploads import LogUploads


class FlakyLog:
    """A log whose store refuses the first writes; like S3's, it keeps what could not be written."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.kept = b""
        self.written = b""
        self.closed = threading.Event()

    def write(self, data: bytes, at: float | None = None) -> None:
        self.kept += data
        self.flush()

    def flush(self) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise StorageError("not now")
        self.written = self.kept

    def close(self) -> None:
        self.closed.set()
        self.flush()


def test_everything_arrives_in_order() -> None:
    """Each stream in its own log."""
    logs = {"stdout": FlakyLog(0), "stderr": FlakyLog(0)}
    uploads = LogUploads(logs)
    for i in range(100):
        uploads.add("stdout" if i % 2 else "stderr", b"%d " % i)
    uploads.close()
    assert logs["stdout"].written == b"".join(b"%d " % i for i in range(1, 100, 2))
    assert logs["stderr"].written == b"".join(b"%d " % i for i in range(0, 100, 2))


def test_a_store_that_refuses_loses_nothing_of_what_came_with_it() -> None:
    """Neither of this stream nor of the other; and both are closed."""
    logs = {"stdout": FlakyLog(1), "stderr": FlakyLog(0)}
    uploads = LogUploads(logs)
    uploads.add("stdout", b"one ")
    uploads.add("stderr", b"error ")
    uploads.add("stdout", b"two")
    uploads.close()
    assert logs["stdout"].written == b"one two"
    assert logs["stderr"].written == b"error "
    assert all(log.closed.is_set() for log in logs.values())


def test_a_store_that_never_answers_well_is_no_error() -> None:
    """The output has reached the terminal by another way."""
    log = FlakyLog(10**9)
    uploads = LogUploads({"stdout": log})
    uploads.add("stdout", b"x")
    uploads.close()
    assert log.closed.is_set()
    assert log.written == b""
