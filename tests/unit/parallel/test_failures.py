"""Failures in a worker are reported at once, and nothing hangs."""

from __future__ import annotations

import builtins
import ctypes
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k8sflow.parallel import (
    Backend,
    RemoteError,
    WorkerDied,
    WorkerOutOfMemory,
    forked,
    parallel_imap,
    parallel_imap_unordered,
    parallel_map,
)
from k8sflow.parallel.channels import readable_within


class TwoArguments(Exception):
    """Its pickle can't be loaded: __init__ needs more than `args`."""

    def __init__(self, place: str, amount: int) -> None:
        super().__init__(f"{amount} at {place}")
        self.amount = amount


class Unsendable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()
        self.code = 5


def shown(error: BaseException) -> str:
    """The error as the user sees it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def test_an_exception_keeps_its_type_and_says_where(way: Backend) -> None:
    """The original exception, the item's index and repr, and the traceback within the worker."""

    def fails_at_five(i: int) -> float:
        return 1 / (i - 5)

    for kind in (parallel_map, parallel_imap, parallel_imap_unordered):
        with pytest.raises(ZeroDivisionError) as caught:
            list(kind(fails_at_five, range(100), 2, backend=way))
        text = shown(caught.value)
        assert "item 5: 5" in text
        assert "return 1 / (i - 5)" in text


def test_the_repr_of_the_item_is_short() -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        parallel_map(lambda item: (_ for _ in ()).throw(ValueError("bad")), ["x" * 100_000], 2)
    assert "item 0: 'xxxx" in shown(caught.value)
    assert len(shown(caught.value)) < 5_000


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_an_item_without_a_repr_hides_nothing(start_method: str) -> None:
    with pytest.raises(ValueError, match="the cause"):
        parallel_map(lambda item: (_ for _ in ()).throw(ValueError("the cause")), [BadRepr()], 2)


def raising(error: Callable[[], BaseException]) -> Callable[[int], None]:
    def func(_item: int) -> None:
        raise error()

    return func


def test_exceptions_whose_pickle_fails_keep_their_type(start_method: str) -> None:
    with pytest.raises(TwoArguments, match="7 at home") as two:
        parallel_map(raising(lambda: TwoArguments("home", 7)), [1], 2)
    assert two.value.amount == 7
    with pytest.raises(Unsendable, match="holds a lock") as unsendable:
        parallel_map(raising(Unsendable), [1], 2)
    assert unsendable.value.code == 5


@dataclass(frozen=True)
class FrozenError(Exception):
    """Its attributes can't be set: no note, no cause."""

    place: str


class WellGuarded(Exception):
    """As unhelpful as an exception can be."""

    def __new__(cls, *args: Any) -> Any:
        if os.getpid() == HERE:
            raise RuntimeError("only workers create it")
        return super().__new__(cls, *args)

    def __init__(self, what: str) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def add_note(self, note: str) -> None:
        raise RuntimeError("no note")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no attributes")


HERE = os.getpid()


def test_exceptions_that_refuse_attributes_are_still_raised(way: Backend) -> None:
    """With a note."""
    with pytest.raises(FrozenError, match="cellar") as frozen:
        parallel_map(raising(lambda: FrozenError("cellar")), [1], 2, backend=way)
    assert frozen.value.place == "cellar"
    assert "item 0: 1" in shown(frozen.value)


def test_an_exception_that_cannot_be_rebuilt_is_raised_as_text() -> None:
    with pytest.raises(RemoteError, match="WellGuarded") as caught:
        parallel_map(raising(lambda: WellGuarded("gate")), [1], 2)
    assert "item 0: 1" in shown(caught.value)


def test_an_exception_of_a_local_class_can_be_caught(start_method: str) -> None:
    class LocalError(Exception):
        pass

    with pytest.raises(LocalError, match="here"):
        parallel_map(raising(lambda: LocalError("here")), [1], 2)


def test_an_exception_that_cannot_be_sent_is_raised_as_text() -> None:
    """The parent doesn't know a class that was created in the worker."""

    def func(_item: int) -> None:
        class MadeInTheWorkerError(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("never")

        raise MadeInTheWorkerError("some words")

    with pytest.raises(RemoteError, match="MadeInTheWorkerError: some words") as caught:
        parallel_map(func, [1], 2)
    assert "raise MadeInTheWorkerError" in shown(caught.value)


def test_an_exception_with_notes_that_cannot_be_sent_is_raised_with_them() -> None:
    """Its text is the original one, not that of its last note."""

    def func(_item: int) -> None:
        class MadeInTheWorkerError(Exception):
            pass

        error = MadeInTheWorkerError("some words")
        error.__notes__ = ["a hint"]  # type: ignore[attr-defined]
        raise error

    with pytest.raises(RemoteError, match="MadeInTheWorkerError: some words") as caught:
        parallel_map(func, [1], 2)
    assert caught.value.__notes__[0] == "a hint"  # type: ignore[attr-defined]
    assert "item 0: 1" in shown(caught.value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are Python 3.11's")
def test_a_group_keeps_its_type_and_the_members_that_can_be_sent(start_method: str) -> None:
    """The others keep their position as text, each with its notes; nested groups too."""

    group_class: Any = vars(builtins)["ExceptionGroup"]  # unknown to a checker of Python 3.10

    class LocalGroup(group_class):
        pass

    def func(_item: int) -> None:
        class MadeInTheWorkerError(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("never")

        class GroupMadeInTheWorker(group_class):
            pass

        unknown = MadeInTheWorkerError("some words")
        unknown.add_note("of the unknown")  # type: ignore[attr-defined]
        value = ValueError("a value")
        value.add_note("of the value")  # type: ignore[attr-defined]
        inner = LocalGroup("inner", [Unsendable(), KeyError("k")])
        group = LocalGroup("outer", [value, unknown, inner, GroupMadeInTheWorker("worker's", [unknown])])
        group.add_note("of the group")
        raise group

    with pytest.raises(LocalGroup, match="outer") as caught:
        parallel_map(func, [1], 2)
    group: Any = caught.value
    value, unknown, inner, workers = group.exceptions
    assert type(value) is ValueError
    assert value.__notes__ == ["of the value"]
    if start_method == "fork":  # cloudpickle brings the class along
        assert type(unknown) is RemoteError
    assert str(unknown).endswith("some words")
    assert unknown.__notes__ == ["of the unknown"]
    assert type(inner) is LocalGroup
    assert [type(member) for member in inner.exceptions] == [Unsendable, KeyError]
    assert inner.exceptions[0].code == 5
    assert isinstance(workers, group_class)
    assert [type(member) for member in workers.exceptions] == [type(unknown)]
    assert group.__notes__[0] == "of the group"
    assert "item 0: 1" in group.__notes__[1]
    (matched, _) = group.split(KeyError)
    assert len(matched.exceptions) == 1


class SaysNothing(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class QuitsWhenPickled(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(7)


def deep_group() -> BaseException:
    error: BaseException = Unsendable()
    for _ in range(3000):
        error = vars(builtins)["ExceptionGroup"]("deep", [error])
    return error


def test_an_exception_that_cannot_be_inspected_is_not_mistaken_for_a_dead_worker(start_method: str) -> None:
    """The error names its class and the item."""
    makers: list[Callable[[], BaseException]] = (
        [SaysNothing, deep_group] if sys.version_info >= (3, 11) else [SaysNothing]
    )
    for make in makers:
        with pytest.raises(RemoteError, match=r"SaysNothing|ExceptionGroup") as caught:
            parallel_map(raising(make), [1], 2)
        assert "item 0: 1" in shown(caught.value)
    with pytest.raises(QuitsWhenPickled, match="now"):
        parallel_map(raising(lambda: QuitsWhenPickled("now")), [1], 2)


def test_a_refused_fork_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(forked, "fork_process", refused)
    with pytest.raises(BlockingIOError) as caught:
        parallel_map(abs, range(8), 8)
    assert "Lower max_parallel" in shown(caught.value)


def test_system_exit_in_the_function_reaches_the_caller(way: Backend) -> None:
    with pytest.raises(SystemExit) as caught:
        parallel_map(lambda i: sys.exit(3), [1], 2, backend=way)
    assert caught.value.code == 3


def test_a_result_that_cannot_be_sent_names_its_item(start_method: str) -> None:
    with pytest.raises((TypeError, pickle.PicklingError), match="lock") as caught:
        parallel_map(lambda i: threading.Lock() if i == 3 else i, range(9), 2)
    assert "item 3: 3" in shown(caught.value)


def test_an_item_of_a_generator_that_cannot_be_sent_names_itself(start_method: str) -> None:
    with pytest.raises((TypeError, pickle.PicklingError), match="lock") as caught:
        parallel_map(lambda lock: 1, (threading.Lock() for _ in range(3)), 2)
    assert "item 0" in shown(caught.value)


def test_results_before_a_failure_come_first(start_method: str) -> None:
    """Like `map`: finished results are yielded, then the exception is raised; nothing hangs."""
    seen = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(parallel_imap(lambda i: (i, 1 / (i - 5)), range(10), 1, chunk_size=10))
    results = parallel_imap(lambda i: threading.Lock() if i == 5 else i, range(10), 1, chunk_size=10)
    with pytest.raises((TypeError, pickle.PicklingError)):
        seen.extend(results)
    assert [entry for entry in seen if isinstance(entry, int)] == [0, 1, 2, 3, 4]


class FailsToLoad:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def test_a_result_that_cannot_be_loaded_names_its_items(start_method: str) -> None:
    with pytest.raises(ValueError, match="not a number") as caught:
        parallel_map(lambda i: FailsToLoad(), [1], 1)
    assert "unpickling the results of the items 0 to 0" in shown(caught.value)


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
    assert time.monotonic() - began < 5


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
            time.sleep(0.2)  # by now the others have answered

    with pytest.raises(WorkerDied, match="SIGKILL"):
        consume()
    assert len(drawn) < 8


def kill_a_child() -> None:
    pids = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    os.kill(int(pids[0]), signal.SIGKILL)


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


@pytest.mark.parametrize("backend", ["fork", "spawn", "threads"])
def test_a_stop_iteration_of_the_function_is_raised_as_it_is(backend: Backend) -> None:
    """As by a loop over the items; our own generators would make a RuntimeError of it."""
    with pytest.raises(StopIteration) as raised:
        parallel_map(_first_of_none, [1, 2], backend=backend)
    assert "parallel_map: raised at item" in "".join(raised.value.__notes__)
    for lazy in (parallel_imap, parallel_imap_unordered):
        with pytest.raises(RuntimeError, match="generator raised StopIteration") as wrapped:
            list(lazy(_first_of_none, [1, 2], backend=backend))
        assert isinstance(wrapped.value.__cause__, StopIteration)


def test_a_stop_iteration_within_a_worker_of_one_core_is_raised_as_it_is() -> None:
    """The items of a call inside a worker run without workers where its share is one core."""
    with pytest.raises(StopIteration):
        parallel_map(lambda _: parallel_map(_first_of_none, [1], max_parallel=1), [1], max_parallel=1)


def _first_of_none(_item: int) -> object:
    return next(iter([]))
