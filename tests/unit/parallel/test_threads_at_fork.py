"""Locks and imports that other threads of the caller hold at the fork: no worker hangs for them."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k8sflow.parallel import forking, parallel_map
from k8sflow.parallel.forking import fork_process
from tests.support import in_python


def test_locks_that_another_thread_holds_at_the_fork_hang_no_worker() -> None:
    """The locks of numpy's global generator, which is reseeded, and of the standard streams, which are flushed."""
    done = in_python(
        """
import os, sys, threading
import numpy.random
from k8sflow.parallel import forked, parallel_map
readable, full = os.pipe()
sys.stdout = open(full, "w")
threading.Thread(target=lambda: (sys.stdout.write("x" * 300_000), sys.stdout.flush()), daemon=True).start()
stop = threading.Event()
def use_random():
    while not stop.is_set():
        numpy.random.bytes(100_000)
threading.Thread(target=use_random).start()
os.read(readable, 1)
forked.flush_output = lambda: None  # in the parent, which would rightly wait
for _ in range(20):
    assert parallel_map(lambda i: i, range(8), 2, chunk_size=1) == list(range(8))
stop.set()
os.write(2, b"done")
os._exit(0)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "done")


class Blocking(io.RawIOBase):
    """A file that blocks writes in this process until its event is set, and never in others."""

    def __init__(self) -> None:
        self.writing, self.leave = threading.Event(), threading.Event()
        self.pid = os.getpid()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if os.getpid() == self.pid:
            self.writing.set()
            self.leave.wait(60)
        return len(data)


def test_a_thread_that_logs_at_the_fork_hangs_no_worker() -> None:
    """The log's stream is locked while it writes, and the workers log too."""
    file = Blocking()
    logger, handler = logging.getLogger("a log"), logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(file)))
    logger.propagate = False
    logger.addHandler(handler)
    writer = threading.Thread(target=logger.error, args=("a line",))
    writer.start()
    file.writing.wait(60)
    try:
        assert parallel_map(lambda i: logger.error("item %d", i), range(4), 2) == [None] * 4
    finally:
        file.leave.set()
        writer.join()
        logger.removeHandler(handler)


@contextlib.contextmanager
def importing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Another thread is importing `slow` until the event `leave` is set; yields the module `gates` with the events."""
    gates: Any = types.ModuleType("gates")
    gates.started, gates.leave = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "gates", gates)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "slow.py").write_text("import gates\nfirst = 1\ngates.started.set()\ngates.leave.wait(60)\nlast = 2\n")
    thread = threading.Thread(target=importlib.import_module, args=("slow",))
    thread.start()
    gates.started.wait(60)
    try:
        yield gates
    finally:
        gates.leave.set()
        thread.join()
        del sys.modules["slow"]


def test_a_module_that_another_thread_imports_is_whole_in_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork waits for its import: a worker can't, since it lacks the thread."""
    with importing(tmp_path, monkeypatch) as gates:
        ready = threading.Timer(0.1, gates.leave.set)
        ready.start()
        assert parallel_map(lambda _: importlib.import_module("slow").last, range(4), 2) == [2] * 4
        ready.join()


def test_an_import_that_does_not_end_hangs_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread may be waiting for the caller; workers see the part of the module that was executed."""
    monkeypatch.setattr(forking, "_IMPORT_SECONDS", 0.1)
    with importing(tmp_path, monkeypatch):
        assert parallel_map(lambda _: importlib.import_module("slow").first, range(4), 2) == [1] * 4
        with pytest.raises(AttributeError, match="partially initialized module 'slow'"):
            parallel_map(lambda _: importlib.import_module("slow").last, range(4), 2)


def test_a_thread_that_draws_numbers_at_the_fork_hangs_no_worker() -> None:
    """numpy's generator is locked while it is used; the lock of a thread that is missing in the fork is released."""
    lock = np.random.mtrand._rand._bit_generator.lock
    taken, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    try:
        pid = fork_process()
        if pid == 0:
            os._exit(0 if lock.acquire(timeout=10) else 1)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        leave.set()
        holder.join()
