"""Workers live as long as the call, and leave nothing behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k8sflow.parallel import Backend, WorkerDied, loop, parallel_imap, parallel_imap_unordered, parallel_map
from k8sflow.parallel.channels import readable_within
from k8sflow.parallel.forking import private_fds
from k8sflow.parallel.signals import interrupts_held
from k8sflow.parallel.spawned import SpawnTeam
from tests.support import in_python, own_children


def test_a_closed_generator_ends_its_workers(way: Backend) -> None:
    """Early, with work in flight and results unread; `leaves_nothing_behind` checks the rest."""
    for kind in (parallel_imap, parallel_imap_unordered):
        results = kind(lambda i: i, itertools.count(), 2, backend=way)
        assert next(results) in range(10_000)
        results.close()
        assert own_children() == []


def test_a_generator_that_was_never_started_has_started_nothing(way: Backend) -> None:
    results = parallel_imap(lambda i: i, range(10), 2, backend=way)
    assert own_children() == []
    results.close()


def test_a_forgotten_generator_ends_its_workers() -> None:
    results = parallel_imap(lambda i: i, range(100_000), 2)
    next(results)
    assert len(own_children()) == 2
    del results
    gc.collect()
    assert own_children() == []


def test_a_call_inside_a_spawned_workers_items_can_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of the caller pickle items; a call inside one of them needs the lock for starting and ending workers."""
    monkeypatch.setattr(loop, "START_METHOD", "spawn")
    monkeypatch.setenv("K8SFLOW_CPUS", "8")  # so that the inner call has workers of its own
    pickling, stopping = threading.Event(), threading.Event()
    timer = threading.Timer(0.1, stopping.set)

    class Calls:
        def __reduce__(self) -> Any:
            pickling.set()
            stopping.wait(60)
            return list, (parallel_map(abs, range(2), 2),)

    def stop(team: Any) -> None:
        if timer.ident is None:  # the first time
            pickling.wait(60)
            timer.start()
        original(team)

    original = SpawnTeam.stop
    monkeypatch.setattr(SpawnTeam, "stop", stop)
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda item: 1 / item, [0, Calls()], 2)
    timer.join()


def test_a_consumers_exception_ends_the_workers() -> None:
    results = parallel_imap(lambda i: i, range(100_000), 2)
    with contextlib.closing(results), contextlib.suppress(KeyError):
        raise KeyError(next(results))
    assert own_children() == []


@pytest.mark.slow
def test_an_interrupt_at_any_moment_leaves_nothing_behind() -> None:
    """Ctrl-C after 0 to 30 ms: while workers start, work or end."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    parallel_map(abs, range(2), 2)  # Python itself would leave an interrupted import half done
    before = signal.signal(signal.SIGINT, interrupt)
    caught = 0
    try:
        for milliseconds in range(1, 31):
            ready = threading.Timer(milliseconds / 1000, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
            try:
                ready.start()
                parallel_map(lambda i: i, range(200_000), 2)
                ready.join()
            except KeyboardInterrupt:
                caught += 1
            ready.join()
            assert own_children() == []
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught > 5


def test_a_timeout_by_alarm_leaves_nothing_behind() -> None:
    """An exception of a signal handler, while the function works."""

    def too_late(_signal: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_late)
    try:
        for _ in range(5):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(TimeoutError):
                parallel_map(lambda _: signal.pause(), range(4), 2)
            assert own_children() == []
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_timeout_by_alarm_is_never_mistaken_for_a_refused_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TimeoutError is an OSError: it may occur while an optional file is read."""

    def too_late(_path: Path, *_: object, **__: object) -> str:
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", too_late)
        with pytest.raises(TimeoutError):
            parallel_map(lambda item: item, range(4), 2)


def test_a_signal_that_another_thread_takes_waits_too() -> None:
    """Threads of libraries block no signals, and Python runs the handler in the main thread anyway."""
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    seen: list[str] = []
    handled = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: (seen.append("handled"), handled.set()))
    try:
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGUSR1)
            deadline = time.monotonic() + 60
            while signal.SIGUSR1 in signal.sigpending():
                assert time.monotonic() < deadline, "no thread took the signal"
                time.sleep(0.001)
            seen.append("held")
        assert handled.wait(60)
        assert seen == ["held", "handled"]
    finally:
        signal.signal(signal.SIGUSR1, before)
        stop.set()
        other.join()


def test_a_copy_of_a_generator_in_a_forked_child_does_no_harm() -> None:
    """The child's copy may be closed; the workers are the parent's."""
    results = parallel_imap(lambda i: i, range(100_000), 2)
    next(results)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=results.close)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert next(results) == 1
    results.close()


def test_workers_started_from_a_thread_outlive_it() -> None:
    """The generator is started in a thread that ends; another thread continues it."""
    results = parallel_imap(lambda i: i, range(100_000), 2)
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(next(results)))
    thread.start()
    thread.join()
    assert [*first, *itertools.islice(results, 10_000)] == list(range(10_001))
    results.close()


@pytest.mark.slow
def test_many_calls_at_once_from_threads() -> None:
    """Calls of several threads don't keep each other's pipes open."""
    done: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: done.extend(parallel_map(lambda i: i, range(50), 2) for _ in range(10)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [list(range(50))] * 40


def test_a_killed_worker_is_seen_while_another_call_runs() -> None:
    """The second call's workers don't keep the first's pipes open."""
    outer = parallel_imap(lambda i: i, range(100_000), 2, chunk_size=1)
    next(outer)
    first = own_children()
    inner = parallel_imap(lambda i: i, range(100_000), 2, chunk_size=1)
    next(inner)
    os.kill(first[0], signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        list(outer)
    inner.close()


def test_more_workers_than_start_at_once() -> None:
    """They start in groups, which limits the number of open descriptors."""
    assert parallel_map(lambda i: i, range(80), 40, chunk_size=1) == list(range(80))


@pytest.mark.slow
def test_a_forgotten_generator_may_be_collected_while_workers_start() -> None:
    """Its end and their start need the same lock, in the same thread."""
    for _ in range(30):
        cycle: list[Any] = [parallel_imap(lambda i: i, range(10_000), 1)]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            parallel_map(lambda i: i, range(4), 2)
        finally:
            gc.set_threshold(*threshold)


def test_a_function_may_fork(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A child of the worker may end by itself; one that returns from the function is stopped.

    It writes nothing, in particular not to files that now have the worker's descriptors.
    """
    files = [tmp_path / str(i) for i in range(20)]

    def forks(i: int) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0) if i % 2 else None
            for _ in range(20):
                os.open(files[i], os.O_RDWR | os.O_CREAT)
            return -1  # must never be seen
        os.waitpid(pid, 0)
        return i

    assert parallel_map(forks, range(20), 2) == list(range(20))
    assert [file.read_bytes() for file in files[::2]] == [b""] * 10
    assert capfd.readouterr() == ("", "")


def test_a_function_may_start_programs() -> None:
    def runs(i: int) -> str:
        return subprocess.run(["echo", str(i)], capture_output=True, text=True, check=True).stdout

    assert parallel_map(runs, range(4), 2) == ["0\n", "1\n", "2\n", "3\n"]


def test_a_parent_with_threads_forks_without_a_warning() -> None:
    """Running threads in the parent cause no warning, not even Python 3.12's."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert parallel_map(lambda i: threading.active_count(), range(2), 2) == [1, 1]
    finally:
        stop.set()
        thread.join()


def test_signal_handlers_of_the_parent_do_not_run_in_workers(start_method: str) -> None:
    """SIGTERM ends a worker, however the parent handles it; Ctrl-C is handled by the parent."""
    before = signal.signal(signal.SIGTERM, lambda *_: print("the parent's"))
    try:

        def func(_item: int) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            return 1

        with pytest.raises(WorkerDied, match="SIGTERM"):
            parallel_map(func, range(2), 2)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_parent_sleeps_while_it_waits(start_method: str) -> None:
    """It uses no CPU time while workers work."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    before = usage.ru_utime + usage.ru_stime

    def work(_item: int) -> None:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass

    parallel_map(work, range(2), 2)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert usage.ru_utime + usage.ru_stime - before < 0.1


def mappings() -> int:
    with open("/proc/self/maps") as file:
        return len(file.readlines())


def repeat(calls: int) -> None:
    def func(i: int) -> Any:
        return np.ones(40_000) if i == 1 else i

    parallel_map(func, range(3), 2)
    gc.collect()
    before = mappings(), len(os.listdir("/proc/self/fd")), threading.active_count(), len(own_children())
    for _ in range(calls):
        parallel_map(func, range(3), 2)
    gc.collect()
    after = mappings(), len(os.listdir("/proc/self/fd")), threading.active_count(), len(own_children())
    assert after[1:] == before[1:]
    assert after[0] <= before[0] + 8  # the allocator's own


def test_calls_in_a_row_leak_nothing() -> None:
    repeat(50)


@pytest.mark.slow
def test_two_thousand_calls_in_a_row_leak_nothing() -> None:
    """The numbers of descriptors, threads, children and mappings don't grow."""
    repeat(2000)


def test_memory_of_results_is_freed_with_them() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    arrays = parallel_map(lambda i: np.ones(4_000_000), range(4), 2)
    assert resident() - before > 120_000_000
    del arrays
    gc.collect()
    assert resident() - before < 20_000_000


def test_a_worker_that_a_handler_of_the_caller_reaped_is_not_killed_by_its_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid may belong to another process by now."""
    monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail(f"signal {number} for {pid}"))

    def reap(_signal: int, _frame: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        with pytest.raises(WorkerDied):
            parallel_map(lambda _: os._exit(3), range(4), 2)
        # The same if the handler is so fast that there is no process left to open a pidfd for.
        plain = os.pidfd_open

        def too_late(pid: int) -> int:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            return plain(pid)

        monkeypatch.setattr(os, "pidfd_open", too_late)
        with pytest.raises(WorkerDied):
            parallel_map(lambda _: os._exit(3), range(4), 2)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_descriptors_run_out_without_a_leak() -> None:
    """A start that fails half-way is undone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    try:
        for spare in range(1, 14):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            with contextlib.suppress(OSError):
                parallel_map(lambda i: i, range(4), 2)
            assert own_children() == []
            assert private_fds == set()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_interpreter_that_exits_with_a_generator_open_leaves_no_worker() -> None:
    done = in_python(
        "import itertools\n"
        "from k8sflow.parallel import parallel_imap\n"
        "results = parallel_imap(lambda i: i, itertools.count(), 2)\n"
        "next(results)\n"
        "print(open('/proc/self/task/%d/children' % __import__('os').getpid()).read())\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            assert readable_within(fd, 1)
            os.close(fd)
