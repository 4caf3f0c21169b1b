"""Logs on their way to the store: nobody waits for them, and a store that fails for a while loses nothing."""

from __future__ import annotations

import threading

import pytest

from k8sflow.errors import StorageError
from k8sflow.task.host import uploads as uploads_module
from k8sflow.task.host.uploads import LogUploads
from tests.support import wait_for


class FlakyLog:
    """A log whose store refuses the first writes; like S3's, it keeps what could not be written."""

    def __init__(self, refusals: int, error: Exception | None = None) -> None:
        self.refusals = refusals
        self.error = error or StorageError("not now")
        self.kept = b""
        self.written = b""
        self.closed = threading.Event()

    def write(self, data: bytes, at: float | None = None) -> None:
        self.kept += data
        self._flush()

    def _flush(self) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise self.error
        self.written = self.kept

    left_out = ""

    def flush(self) -> None:
        if self.kept != self.written:
            self._flush()

    @property
    def missing(self) -> int:
        return len(self.kept) - len(self.written)

    def close(self) -> None:
        self.closed.set()
        self._flush()


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


def test_a_store_that_never_answers_well_is_not_an_error() -> None:
    """The output has reached the terminal by another way."""
    log = FlakyLog(10**9)
    uploads = LogUploads({"stdout": log})
    uploads.add("stdout", b"x")
    assert uploads.close() == "1 bytes of stdout could not be stored: not now"
    assert log.closed.is_set()
    assert log.written == b""


@pytest.mark.parametrize("error", [BufferError("exported"), RuntimeError("a bug"), OSError("no"), StorageError("s")])
def test_no_error_ends_the_thread(error: Exception) -> None:
    """Later output is stored, with the output that it had kept."""
    log = FlakyLog(1, error)
    uploads = LogUploads({"stdout": log})
    uploads.add("stdout", b"one ")
    wait_for(lambda: log.refusals == 0)
    uploads.add("stdout", b"two")
    assert uploads.close() == ""
    assert log.written == b"one two"


class ForgetfulLog(FlakyLog):
    """A log that doesn't keep what it could not write."""

    def write(self, data: bytes, at: float | None = None) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise self.error
        super().write(data, at)


def test_what_a_log_lost_is_counted() -> None:
    """The loss of each stream is reported, with the reason."""
    uploads = LogUploads({"stdout": ForgetfulLog(10**9, RuntimeError("why")), "stderr": FlakyLog(0)})
    uploads.add("stdout", b"12345")
    uploads.add("stderr", b"1")
    assert uploads.close() == "5 bytes of stdout could not be stored: RuntimeError: why"


def test_the_death_of_the_thread_is_reported() -> None:
    """Whatever it died of, the end says that output is missing."""
    uploads = LogUploads({"stdout": FlakyLog(0)})
    uploads._logs = {}  # type: ignore[assignment]  the next piece has no log, which is a bug
    uploads.add("stdout", b"12")
    uploads._thread.join()
    uploads._logs = {"stdout": FlakyLog(0)}
    assert uploads.close() == "2 bytes of stdout could not be stored: KeyError: 'stdout'"


def test_closing_waits_as_long_as_the_patience_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that hangs holds the end up, which is reported; less patience (the pod must go) shortens it."""
    monkeypatch.setattr(uploads_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(uploads_module, "_REPORT_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(uploads_module, "_LEAST_CLOSE_SECONDS", 0.0)
    patience, said, go_on = [1000.0], [], threading.Event()

    class Hanging(FlakyLog):
        def _flush(self) -> None:
            go_on.wait()

    def say(text: str) -> None:
        said.append(text)
        patience[0] = 0.0

    uploads = LogUploads({"stdout": Hanging(0)}, lambda: patience[0], say)
    uploads.add("stdout", b"123")
    assert uploads.close() == "3 bytes of stdout could not be stored: the bucket did not answer in time."
    assert len(said) == 1
    go_on.set()


def test_output_that_a_slow_store_does_not_take_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer waits once, then output is left out until there is room; the log says where, the end how much."""
    monkeypatch.setattr(uploads_module, "_MOST_HELD_BYTES", 10)
    monkeypatch.setattr(uploads_module, "_LONGEST_STALL_SECONDS", 0.01)
    go_on = threading.Event()

    class Hanging(FlakyLog):
        def _flush(self) -> None:
            go_on.wait()
            super()._flush()

    log = Hanging(0)
    uploads = LogUploads({"stdout": log})
    uploads.add("stdout", b"0123456789ab ")
    uploads.add("stdout", b"left out")
    uploads.add("stdout", b"this too")
    go_on.set()
    wait_for(lambda: not uploads._is_full())
    uploads.add("stdout", b"again")
    assert uploads.close() == "16 bytes of stdout could not be stored: the bucket was too slow."
    assert log.written == (b"0123456789ab \n[k8sflow] 16 bytes are left out here: the bucket was too slow.\nagain")


def test_a_limit_of_the_log_is_reported_at_the_end() -> None:
    log = FlakyLog(0)
    log.left_out = "5 bytes were left out"
    uploads = LogUploads({"stdout": log})
    uploads.add("stdout", b"x")
    assert uploads.close() == "stdout: 5 bytes were left out"


def test_what_a_log_holds_back_is_flushed_while_nothing_is_added() -> None:
    """The store is not idle until it has everything."""
    log = FlakyLog(1)
    uploads = LogUploads({"stdout": log})
    uploads.add("stdout", b"x")
    wait_for(lambda: log.written == b"x")
    uploads.close()
