"""Libraries with threads and processes of their own: nothing hangs, nothing stays behind, and the values are right."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import k8sflow
from k8sflow.parallel import Backend, WorkerDied, parallel_map
from tests.unit.parallel.test_deaths import wait_until_dead

POLARS = """
import threading, warnings
import polars as pl
from k8sflow.parallel import parallel_imap, parallel_map

df = pl.DataFrame({"shop": [i % 8 for i in range(1000)], "x": range(1000)})

def total(shop):
    return df.filter(pl.col("shop") == shop).select(pl.col("x").sum()).item()

expected = [total(shop) for shop in range(8)]
df.lazy().group_by("shop").agg(pl.col("x").sum()).collect()
"""

JOBLIB = """
import numpy as np
from joblib import Parallel, delayed
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from k8sflow.parallel import parallel_imap, parallel_map

X = np.random.default_rng(0).random((200, 3))
y = X.sum(axis=1)

def score(alpha):
    return float(cross_val_score(Ridge(alpha), X, y, n_jobs=2).mean())

def total(n):
    return sum(Parallel(n_jobs=2)(delayed(abs)(i) for i in range(-n, 0)))
"""


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in an interpreter that has loaded nothing else; a hang is a failure."""
    command = [sys.executable, *options, "-c", script]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=Path(k8sflow.__file__).parents[1]
    )


def test_polars_in_the_parent_means_new_interpreters_and_one_warning() -> None:
    done = run(POLARS + "assert parallel_map(total, range(8), 2) == expected\nprint('done')")
    assert done.stdout == "done\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert "<string>:13: RuntimeWarning: parallel_map starts new interpreters" in done.stderr  # the caller's line
    assert "polars" in done.stderr


@pytest.mark.parametrize(
    "call", ["list(parallel_imap(total, iter(range(8)), 2))", "parallel_map(total, df['shop'][:8], 2)"]
)
def test_polars_with_other_calls_and_items(call: str) -> None:
    done = run(POLARS + f"assert {call} == expected\nprint('done')", "-W", "ignore")
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_polars_with_a_function_that_cannot_be_sent_is_an_error_that_says_what_to_do() -> None:
    call = "lock = threading.Lock()\nparallel_map(lambda shop: (lock, total(shop)), range(8))"
    done = run(POLARS + call, "-W", "ignore")
    assert "RuntimeError: parallel_map: the function can't be sent to a worker" in done.stderr
    assert 'Use backend="threads"' in done.stderr


def test_polars_with_an_item_that_cannot_be_sent_is_named() -> None:
    done = run(POLARS + "parallel_map(id, [0, threading.Lock()], 1)", "-W", "ignore")
    assert "RuntimeError: parallel_map: item 1 can't be sent to a worker" in done.stderr
    assert "polars" in done.stderr


@pytest.mark.parametrize("backend", ["threads", "spawn"])
def test_polars_with_a_backend_gives_no_warning(backend: str) -> None:
    done = run(POLARS + f"assert parallel_map(total, range(8), 2, backend={backend!r}) == expected", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_polars_that_has_not_run_yet_is_forked_without_a_warning() -> None:
    script = POLARS.split("expected =", maxsplit=1)[0] + "assert parallel_map(total, range(2), 2) == [62000, 62125]"
    assert run(script, "-W", "error").stderr == ""


def test_polars_where_the_worker_does_not_use_it_can_be_forked() -> None:
    script = POLARS + "lock = threading.Lock()\nparallel_map(lambda i: [lock][0] and i, range(3), 2, backend='fork')"
    assert run(script, "-W", "error").stderr == ""


@pytest.mark.parametrize("load", ["numpy", "scipy.linalg, numpy", "sklearn.cluster, numpy"])
def test_blas_threads_are_not_a_hazard(load: str) -> None:
    script = f"""
import {load}
from k8sflow.parallel import parallel_map
a = numpy.ones((500, 500))
a @ a
assert parallel_map(lambda _: float((a @ a)[0, 0]), range(4), 2) == [500.0] * 4
"""
    assert run(script, "-W", "error").stderr == ""


@pytest.mark.parametrize("first", ["score(1.0); total(3)", ""])
def test_joblib_in_workers_is_sequential_whether_it_ran_before_or_not(first: str) -> None:
    script = f"""{JOBLIB}
{first}
scores = parallel_map(score, [0.1, 1, 10], 2)
assert np.allclose(scores, [score(alpha) for alpha in (0.1, 1, 10)])
assert list(parallel_imap(total, iter([3, 4]), 2)) == [6, 10]
print('done')
"""
    done = run(script, "-W", "ignore")  # joblib warns that it works sequentially
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_an_executor_of_joblib_that_the_caller_started_is_a_new_one_in_a_worker() -> None:
    """It works, and ends with the call, like its tracker and their files in /dev/shm."""
    script = """
import os
from joblib.externals.loky import get_reusable_executor
from k8sflow.parallel import parallel_map
get_reusable_executor(2).submit(abs, -1).result()
before = set(os.listdir("/dev/shm"))
def work(i):
    from joblib.externals.loky.backend import resource_tracker
    results = get_reusable_executor(2).submit(abs, -i).result(), os.getpid()
    return *results, resource_tracker._resource_tracker._pid
for i, (result, worker, tracker) in enumerate(parallel_map(work, range(2), 2)):
    assert result == i
    assert not any(str(worker) in name for name in os.listdir("/dev/shm"))
assert get_reusable_executor(2).submit(abs, -1).result() == 1
print("done")
"""
    done = run(script, "-W", "ignore")
    assert done.stdout == "done\n", done.stderr


EXECUTORS = """
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from k8sflow.parallel import parallel_imap, parallel_map
threads, processes = ThreadPoolExecutor(2), ProcessPoolExecutor(2)
assert threads.submit(abs, -1).result() == processes.submit(abs, -1).result() == 1
"""


@pytest.mark.parametrize(
    "call",
    [
        "parallel_map(work, range(3), 2)",
        "list(parallel_imap(work, iter(range(3)), 2))",
        "parallel_map(work, range(3), 1)",
    ],
)
def test_a_thread_pool_of_the_caller_works_in_workers(call: str) -> None:
    script = f"""{EXECUTORS}
def work(i):
    return threads.submit(abs, -i).result()
assert {call} == [0, 1, 2]
assert threads.submit(abs, -1).result() == 1
processes.shutdown()
print("done")
"""
    assert run(script).stdout == "done\n"


def test_a_process_pool_of_the_caller_is_an_error_in_workers() -> None:
    script = f"""{EXECUTORS}
try:
    parallel_map(lambda i: processes.submit(abs, i).result(), range(2), 2)
except BrokenProcessPool as error:
    assert "the caller's process pool" in str(error)
assert processes.submit(abs, -1).result() == 1
processes.shutdown()
print("done")
"""
    done = run(script)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("backend", ["fork", "spawn"])
def test_processes_of_multiprocessing_work_in_workers(backend: str) -> None:
    """Pools, managers and shared memory; they leave nothing behind, not even in /dev/shm."""
    script = f"""
import os
from k8sflow.parallel import parallel_map
def work(i):
    import multiprocessing
    from multiprocessing.shared_memory import SharedMemory
    with multiprocessing.Pool(2) as pool:
        results = pool.map(abs, [-i])
    made = multiprocessing.Manager().dict()
    made[i] = results
    return dict(made), SharedMemory(create=True, size=10).name
for i, (made, name) in enumerate(parallel_map(work, range(3), 2, backend={backend!r})):
    assert made == {{i: [i]}}
    assert not os.path.exists("/dev/shm/" + name)
print("done")
"""
    done = run(script)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("load", ["", "import multiprocessing"])
@pytest.mark.parametrize("backend", ["fork", "spawn"])
def test_workers_are_daemons_to_multiprocessing(load: str, backend: str) -> None:
    script = f"""
{load}
from k8sflow.parallel import parallel_map
def is_daemon(_):
    import multiprocessing
    return multiprocessing.current_process().daemon
print(parallel_map(is_daemon, range(2), 2, backend={backend!r}))
import multiprocessing
print(multiprocessing.current_process().daemon)
"""
    assert run(script).stdout == "[True, True]\nFalse\n"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A child of the caller."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def start_sleeper(_: object) -> list[int]:
    """A program, and an orphan that a shell has started."""
    direct = subprocess.Popen(["sleep", "600"])
    orphan = subprocess.run(
        ["sh", "-c", "sleep 600 >/dev/null & echo $!"], check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    return [direct.pid, int(orphan.stdout)]


def start_daemon(_: object) -> list[int]:
    """A program with a session of its own, and an orphan with one."""
    session = subprocess.Popen(["sleep", "600"], start_new_session=True)
    orphan = subprocess.run(
        ["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"],
        check=True,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    return [session.pid, int(orphan.stdout)]


@pytest.mark.parametrize("backend", ["fork", "spawn"])
@pytest.mark.parametrize("start", [start_sleeper, start_daemon])
def test_what_workers_started_ends_with_the_call(
    backend: Backend, start: Callable[[object], list[int]], sleeper: subprocess.Popen[bytes]
) -> None:
    started = parallel_map(start, range(2), 2, backend=backend)
    wait_until_dead([pid for pids in started for pid in pids], 30)
    assert sleeper.poll() is None


@pytest.mark.parametrize("backend", ["fork", "spawn"])
def test_what_a_dead_worker_started_ends_with_the_call(backend: Backend, tmp_path: Path) -> None:
    def start_and_die(i: int) -> None:
        (tmp_path / str(i)).write_text(" ".join(map(str, start_sleeper(i))))
        os._exit(3)

    with pytest.raises(WorkerDied, match="exited with status 3"):
        parallel_map(start_and_die, [0], 1, backend=backend)
    wait_until_dead([int(pid) for pid in (tmp_path / "0").read_text().split()], 30)


def test_what_workers_started_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, signal, subprocess
from k8sflow.parallel import parallel_map
def start(i):
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
    os.kill(os.getppid(), signal.SIGKILL)
    child.wait()
parallel_map(start, [0], 1)
"""
    assert run(script).returncode == -9
    wait_until_dead([int((tmp_path / "pid").read_text())], 30)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("missing", [("pidfd_open",), ("pidfd_open", "sched_getaffinity", "waitid", "memfd_create")])
def test_missing_system_calls_are_not_needed(missing: tuple[str, ...], method: str) -> None:
    """macOS lacks them: results, failures and deaths are the same there."""
    script = f"""
import os, signal
for name in {missing!r}:
    delattr(os, name)
del signal.pidfd_send_signal
from k8sflow.parallel import WorkerDied, loop, parallel_imap, parallel_map
loop.START_METHOD = {method!r}
assert parallel_map(str, range(9), 2) == list(map(str, range(9)))
assert list(parallel_imap(bytes, [3, 1 << 21], 2)) == [bytes(3), bytes(1 << 21)]
try:
    parallel_map(lambda i: 1 // i, [0, 1], 2)
except ZeroDivisionError:
    print("raised")
try:
    parallel_map(os._exit, [3, 3], 2)
except WorkerDied as error:
    print(error.exitcode)
"""
    done = run(script)
    assert (done.stdout, done.stderr) == ("raised\n3\n", "")
