"""Workers that die or are killed: an error at once, with its cause, and never a hang."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8sflow.parallel import (
    WorkerDied,
    WorkerOutOfMemory,
    parallel_imap_unordered,
    parallel_map,
)
from k8sflow.parallel.channels import readable_within


def kill_self(number: int) -> Callable[[int], int]:
    def func(i: int) -> int:
        if i == 7:
            os.kill(os.getpid(), number)
        return i

    return func


def crash(i: int) -> int:
    return ctypes.memset(0, 0, 1) if i == 7 else i


def leave(i: int) -> int:
    if i == 7:
        os._exit(42)
    return i


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize(
    ("func", "words", "exitcode"),
    [
        (kill_self(signal.SIGKILL), "was killed by SIGKILL", -9),
        (kill_self(signal.SIGTERM), "was killed by SIGTERM", -15),
        (kill_self(signal.SIGABRT), "was killed by SIGABRT", -6),
        (crash, "was killed by SIGSEGV", -11),
        (leave, "exited with status 42", 42),
    ],
    ids=["kill", "term", "abort", "segfault", "exit"],
)
def test_a_dead_worker_is_an_error_at_once(
    func: Callable[[int], int], words: str, exitcode: int, lazily: bool, start_method: str
) -> None:
    """The error names the signal or status, and the item."""
    items: Any = (i for i in range(1000)) if lazily else range(1000)
    with pytest.raises(WorkerDied, match=words) as caught:
        parallel_map(func, items, 2, chunk_size=1)
    assert caught.value.exitcode == exitcode
    assert caught.value.index == 7
    assert "at item 7" in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), WorkerDied)
    if exitcode == -9:
        assert "Memory: " in str(caught.value)


def test_the_dead_workers_item_is_named_within_a_large_chunk() -> None:
    with pytest.raises(WorkerDied) as caught:
        parallel_map(kill_self(signal.SIGKILL), range(1000), 2, chunk_size=500)
    assert caught.value.index == 7


def test_a_death_is_seen_though_the_workers_own_child_holds_its_pipes(tmp_path: Any) -> None:
    """An orphan of the function, forked without Python's hooks, keeps every descriptor open."""
    pid_file = tmp_path / "pid"

    def func(i: int) -> int:
        if i == 3:
            pid = ctypes.CDLL(None).fork()  # no at-fork hooks run
            if pid == 0:
                ctypes.CDLL(None).pause()
            pid_file.write_text(str(pid))
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    try:
        with pytest.raises(WorkerDied, match="SIGKILL at item 3"):
            parallel_map(func, range(10), 2)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_a_death_during_a_large_item_is_seen() -> None:
    """The parent is still writing when the reader dies."""

    class Deadly:
        def __init__(self) -> None:
            self.data = b"x" * 50_000_000

        def __reduce__(self) -> Any:
            return kill_self(signal.SIGKILL), (7,), {"data": self.data}

    with pytest.raises(WorkerDied):
        parallel_map(lambda item: item, (Deadly() for _ in range(3)), 2)


def test_a_death_while_the_result_is_pickled_is_seen() -> None:
    class Deadly:
        def __reduce__(self) -> Any:
            os._exit(9)

    with pytest.raises(WorkerDied, match="status 9"):
        parallel_map(lambda i: Deadly(), range(3), 2)


def test_a_failure_ends_the_other_workers(tmp_path: Any) -> None:
    """A sibling that would run for an hour is dead when the error is raised."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def func(i: int) -> None:
        if i == 0:
            time.sleep(3600)
        raise ValueError("first")

    began = time.monotonic()
    with pytest.raises(ValueError, match="first"):
        parallel_map(func, range(2), 2)
    assert time.monotonic() - began < 600


@pytest.mark.slow
def test_a_function_that_closes_its_pipes_is_an_error() -> None:
    def func(_item: int) -> None:
        os.closerange(3, 256)
        signal.pause()

    with pytest.raises(WorkerDied, match="closed its pipe"):
        parallel_map(func, range(2), 1)


def test_a_caller_that_ignores_its_children_still_gets_an_error() -> None:
    """With SIGCHLD ignored the kernel keeps no exit status."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert parallel_map(abs, [-1, -2], 2) == [1, 2]
        with pytest.raises(WorkerDied, match="at item 7"):
            parallel_map(leave, range(10), 2)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_an_idle_workers_death_is_an_error() -> None:
    """Even though it has nothing to do."""

    def draw() -> Iterator[int]:
        yield 0
        yield 1
        kill_a_child()
        yield from range(2, 50)

    with pytest.raises(WorkerDied, match="SIGKILL"):
        parallel_map(lambda i: i, draw(), 2)


def test_an_idle_workers_death_does_not_cut_a_slow_iterable_short() -> None:
    """If all workers are idle when it is noticed and items remain: an error, although others could continue."""
    drawn: list[int] = []

    def draw() -> Iterator[int]:
        for item in range(8):
            drawn.append(item)
            yield item
            time.sleep(0.1)  # long enough to be slow

    def consume() -> None:
        for _ in parallel_imap_unordered(lambda i: i, draw(), 3):
            kill_a_child()
            time.sleep(0.5)  # by now the others have answered

    with pytest.raises(WorkerDied, match="SIGKILL"):
        consume()
    assert len(drawn) < 8


def kill_a_child() -> None:
    """Kill the newest child of this thread: an older one may be a worker of an earlier test that is just exiting."""
    pids = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    os.kill(int(pids[-1]), signal.SIGKILL)


SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background processes without it
sys.path.insert(0, {root!r})
from k8sflow.parallel import loop, parallel_map
loop.START_METHOD = {method!r}
def work(i):
    os.write(1, b"at work %d\\n" % os.getpid())  # one write: unbuffered prints of two workers get mixed
    time.sleep(3600)
def main():
    try:
        parallel_map(work, range(4), 2)
    except KeyboardInterrupt:
        with open(f"/proc/self/task/{{os.getpid()}}/children") as file:
            print("interrupted, children:", file.read().split(), flush=True)
main()
"""


@pytest.fixture
def running(start_method: str, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A script in its own process group with two busy workers, and their pids."""
    script = SCRIPT.format(root=str(request.config.rootpath), method=start_method)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            pids = [int(process.stdout.readline().removeprefix("at work ")) for _ in range(2)]
            yield process, pids
        finally:  # also after a failure above: `with` waits for the process, which sleeps for an hour
            process.kill()


def wait_until_dead(pids: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert readable_within(fd, deadline - time.monotonic())
        os.close(fd)


def test_ctrl_c_ends_everything(running: tuple[subprocess.Popen[str], list[int]]) -> None:
    """A KeyboardInterrupt sent to the group, as a terminal does."""
    process, pids = running
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert "interrupted, children: []" in out
    assert "Traceback" not in err
    assert process.returncode == 0
    wait_until_dead(pids, 1)


def test_workers_end_with_a_killed_parent(running: tuple[subprocess.Popen[str], list[int]]) -> None:
    """Within a second of a kill -9, even if they are busy."""
    process, pids = running
    process.kill()
    wait_until_dead(pids, 1)


def test_running_out_of_memory_has_an_error_of_its_own(memory_limited: Callable[[str], str]) -> None:
    """In a cgroup with a memory limit, the kernel kills the worker; the error has the figures and is a MemoryError."""
    out = memory_limited(
        """
from k8sflow.parallel import parallel_map, WorkerOutOfMemory
try:
    parallel_map(lambda i: len(bytearray(1 << 30)) if i == 3 else i, range(10), 2)
except MemoryError as error:
    print(type(error).__name__, error.index, error.exitcode, error)
"""
    )
    assert out.startswith("WorkerOutOfMemory 3 -9")
    assert "limit 200 MiB" in out
    assert issubclass(WorkerOutOfMemory, MemoryError)
