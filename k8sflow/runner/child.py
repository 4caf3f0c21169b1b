"""A process that runs a flow's command: its output while it is written, the run it started, its end.

Nothing is polled: one thread sleeps until the process writes or ends, and callers, in threads or event loops, wait for
futures.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, Literal

Stream = Literal["stdout", "stderr"]
_READ_BYTES = 1 << 16
# More reads than a pipe's content needs; after the process has ended, its own children may continue to write.
_LAST_READS = 32
# The time that a driver has to cancel its tasks before it is killed together with them.
_PATIENCE_SECONDS = 15.0


class Child:
    """A running process.

    Args:
        line: The command line; the name of a file with the call is appended.
        call: Returns the text of that file, given the name of a file to which the process writes the id of its run.
        env: The environment.
        cwd: The working directory; None for this process's.

    Raises:
        OSError: The process can't be started.
    """

    def __init__(
        self, line: Sequence[str], call: Callable[[str], str], env: Mapping[str, str], cwd: str | None
    ) -> None:
        self.started: Future[str | None] = _pending()
        self.ended: Future[int] = _pending()
        self._changed: Future[None] = _pending()
        self._lock = threading.Lock()
        self._files = {"stdout": self._unnamed_file(), "stderr": self._unnamed_file()}
        self._sizes = {"stdout": 0, "stderr": 0}
        self._answer = b""
        answer_reader, answer_writer = os.pipe()
        try:
            with tempfile.TemporaryFile(prefix="k8sflow-") as given:
                given.write(call(f"/dev/fd/{answer_writer}").encode())
                given.seek(0)
                self._process = subprocess.Popen(
                    [*line, f"/dev/fd/{given.fileno()}"],
                    env=env,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[answer_writer, given.fileno()],
                    start_new_session=True,  # Ctrl-C reaches only this process, which forwards it once
                )
        except BaseException:  # on any failure, the descriptor is closed
            os.close(answer_reader)
            raise
        finally:
            os.close(answer_writer)
        # It must not outlive the interpreter, which has to read its output.
        weakref.finalize(self, _end, self._process)
        threading.Thread(target=self._main, args=(answer_reader,), name="k8sflow-runner", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def changed(self) -> Future[None]:
        """A future that is done at the next change: output, start or end. Get it before checking for these."""
        with self._lock:
            return self._changed

    def output(self, stream: Stream, start: int = 0) -> bytes:
        """The output of the process so far, from an offset on."""
        with self._lock:
            size = self._sizes[stream]
        return os.pread(self._files[stream], size - start, start) if size > start else b""

    def ask_to_stop(self) -> None:
        """Asks the process to cancel its run, and doesn't wait."""
        if not self.ended.done():
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ends the process, by SIGTERM first, and returns when it and its tasks have ended."""
        if not self.ended.done():
            self.ask_to_stop()
            try:
                self.ended.result(_PATIENCE_SECONDS)
            except FutureTimeoutError:
                self._process.kill()
        self.ended.result()

    def _main(self, answer_reader: int) -> None:
        try:
            self._watch(answer_reader)
        except Exception as error:  # noqa: BLE001  otherwise callers would wait forever
            for future in (self.started, self.ended):
                if not future.done():
                    future.set_exception(error)
            self._notify()

    def _watch(self, answer_reader: int) -> None:
        """Reads until the process has ended; its own children may keep its output open forever."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        takers: dict[int, Callable[[bytes], None]] = {
            self._process.stdout.fileno(): lambda data: self._append("stdout", data),
            self._process.stderr.fileno(): lambda data: self._append("stderr", data),
            answer_reader: self._take_answer,
        }
        end = _readable_at_end(self._process)
        with selectors.DefaultSelector() as selector:
            selector.register(end, selectors.EVENT_READ)
            for descriptor in takers:
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            is_over = False
            while not is_over:
                ready = {key.fd for key, _ in selector.select()}
                is_over = end in ready
                for descriptor in takers if is_over else ready:
                    if not _pour(descriptor, takers[descriptor], _LAST_READS if is_over else 1) and not is_over:
                        selector.unregister(descriptor)
                self._notify()
        os.close(end)
        os.close(answer_reader)
        with self._process:
            code = self._process.wait()
        if not self.started.done():
            self.started.set_result(None)
        self.ended.set_result(code)
        self._notify()

    def _append(self, stream: Stream, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk loses output, but doesn't fail the run
            written = os.write(self._files[stream], data)
            with self._lock:
                self._sizes[stream] += written

    def _take_answer(self, data: bytes) -> None:
        self._answer += data
        if b"\n" in self._answer and not self.started.done():
            self.started.set_result(self._answer.decode().split("\n")[0])

    def _notify(self) -> None:
        with self._lock:
            before, self._changed = self._changed, _pending()
        before.set_result(None)

    def _unnamed_file(self) -> int:
        """The descriptor of a file that disappears with this process."""
        descriptor, name = tempfile.mkstemp(prefix="k8sflow-")
        Path(name).unlink()
        weakref.finalize(self, os.close, descriptor).atexit = False  # the watcher thread may still write to it at exit
        return descriptor


def _pour(descriptor: int, take: Callable[[bytes], None], reads: int) -> bool:
    """Passes on available data, in at most this many reads; returns False at the end of the file."""
    for _ in range(reads):
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        take(data)
    return True


def _readable_at_end(process: subprocess.Popen[bytes]) -> int:
    """A descriptor that becomes readable when the process has ended."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # an old kernel, or a seccomp profile
            return os.pidfd_open(process.pid)
    reader, writer = os.pipe()

    def close_at_end() -> None:
        process.wait()
        os.close(writer)

    threading.Thread(target=close_at_end, name="k8sflow-runner-end", daemon=True).start()
    return reader


def _pending() -> Future[Any]:
    """A future that callers can't cancel."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, whose watcher thread may no longer run."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
