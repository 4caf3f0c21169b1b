"""Pools, queues, locks and event loops of the caller in workers: they work, or the error says what to do."""

from __future__ import annotations

import pytest

from tests.unit.parallel.test_other_libraries import run

SCRIPT = """
import asyncio, multiprocessing, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from k8sflow.parallel import parallel_map

async def same(i):
    await asyncio.sleep(0)
    return i

def work(i):
    {work}

if __name__ == "__main__":
    {setup}
    try:
        results = parallel_map(work, range(3), 2, backend={backend!r})
        assert results == [0, 1, 2], results
        {check}
    finally:
        {end}
    print("done")
"""


def call(setup: str, work: str, *, check: str = "", end: str = "", backend: str | None = None) -> tuple[str, str]:
    """Standard output, and the last lines of standard error."""
    done = run(SCRIPT.format(setup=setup, work=work, check=check or "pass", end=end or "pass", backend=backend))
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "use", ["map(abs, [-i])[0]", "apply(abs, (-i,))", "apply_async(abs, (-i,)).get()", "imap(abs, [-i]).next()"]
)
def test_a_thread_pool_of_multiprocessing_gets_threads_of_the_workers_own(use: str) -> None:
    setup = "pool = ThreadPool(2); pool.map(abs, [1])"
    assert call(setup, f"return pool.{use}", check="assert pool.map(abs, [-4]) == [4]") == ("done\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("use", ["map(abs, [-i])[0]", "apply_async(abs, (-i,)).get()", "imap(abs, [-i]).next()"])
def test_a_process_pool_of_multiprocessing_is_an_error_in_a_worker(method: str, use: str) -> None:
    setup = f"pool = multiprocessing.get_context({method!r}).Pool(1)"
    out, error = call(setup, f"return pool.{use}", end="assert pool.map(abs, [-4]) == [4]; pool.terminate()")
    assert out == ""
    assert "RuntimeError: parallel_map: a worker can't use the caller's process pool" in error
    assert "Create the pool inside the function" in error


@pytest.mark.parametrize("warm", ["pool.submit(abs, 1).result()", "pass"])
def test_a_process_executor_is_an_error_in_a_worker_even_before_its_first_use(warm: str) -> None:
    setup = f"pool = ProcessPoolExecutor(1); {warm}"
    out, error = call(setup, "return pool.submit(abs, i).result()", end="pool.shutdown()")
    assert out == ""
    assert "BrokenProcessPool: parallel_map: a worker can't use the caller's process pool" in error


def test_an_executor_of_loky_that_the_caller_holds_is_an_error_in_a_worker() -> None:
    setup = "from joblib.externals.loky import get_reusable_executor; pool = get_reusable_executor(1)"
    out, error = call(setup + "; pool.submit(abs, 1).result()", "return pool.submit(abs, i).result()")
    assert out == ""
    assert "a worker can't use the caller's process pool" in error


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("start", ["pass", "parallel(delayed(abs)(i) for i in range(2))", "parallel.__enter__()"])
def test_joblib_works_in_workers_with_each_of_its_backends(backend: str, start: str) -> None:
    """Unused, used before, and with an executor that the caller keeps open."""
    setup = f"from joblib import Parallel, delayed; parallel = Parallel(n_jobs=2, backend={backend!r}); {start}"
    out, _ = call(setup, "return parallel(delayed(abs)(-i) for _ in range(2))[0]")
    assert out == "done\n"


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib_works_in_workers_that_are_new_interpreters(backend: str) -> None:
    use = f"from joblib import Parallel, delayed; return Parallel(2, backend={backend!r})([delayed(abs)(-i)])[0]"
    assert call("pass", use, backend="spawn")[0] == "done\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_that_the_function_makes_works_after_one_of_the_caller(method: str) -> None:
    context = f"multiprocessing.get_context({method!r})"
    setup = f"pool = {context}.Pool(1); pool.map(abs, [1]); pool.terminate(); pool.join()"
    work = f"pool = {context}.Pool(1); result = pool.map(abs, [-i])[0]; pool.terminate(); pool.join(); return result"
    out, error = call(setup, work)
    assert out == "done\n", error


def test_items_put_into_a_queue_all_arrive() -> None:
    """The caller has used the queue before, so that it has a thread, which workers lack."""
    setup = "queue = multiprocessing.Queue(); queue.put(9); assert queue.get() == 9"
    check = "assert sorted(queue.get() for _ in range(300)) == sorted(list(range(3)) * 100)"
    assert call(setup, "[queue.put(i) for _ in range(100)]; return i", check=check) == ("done\n", "")


def test_a_queue_that_nobody_reads_is_an_error() -> None:
    out, error = call("queue = multiprocessing.Queue()", "queue.put(bytes(1 << 20)); return i", end="queue.close()")
    assert out == ""
    assert "RuntimeError: parallel_map: items that the function put into a multiprocessing.Queue are unread" in error


@pytest.mark.parametrize("backend", [None, "spawn"])
def test_proxies_of_a_manager_work_in_workers(backend: str | None) -> None:
    setup = "manager = multiprocessing.Manager(); shared = manager.dict(); shared['x'] = 1"
    check = "assert dict(shared) == {'x': 1, 0: 0, 1: 1, 2: 2}"
    assert call(setup, "shared[i] = i; return shared[i]", check=check, backend=backend) == ("done\n", "")


@pytest.mark.parametrize(
    ("setup", "work"),
    [
        ("lock = threading.Lock(); threading.Thread(target=lock.acquire).start()", "lock.acquire(); return i"),
        ("gate = threading.Event(); pool = ThreadPoolExecutor(1); job = pool.submit(gate.wait)", "return job.result()"),
        (
            "loop = asyncio.new_event_loop(); threading.Thread(target=loop.run_forever, daemon=True).start()",
            "return asyncio.run_coroutine_threadsafe(same(i), loop).result()",
        ),
    ],
)
def test_an_endless_wait_for_a_thread_of_the_caller_is_an_error_at_its_line(setup: str, work: str) -> None:
    end = "gate.set()" if "gate" in setup else "pass"
    out, error = call(setup, work, end=end)
    assert out == ""
    assert "RuntimeError: parallel_map: the function waits forever." in error
    assert "Create the lock, pool, future or event loop inside the function" in error
    assert ", in work\n" in error


def test_an_endless_wait_in_native_code_is_a_dead_worker() -> None:
    """A lock of the C library, for which no Python signal handler runs."""
    setup = "import ctypes; c = ctypes.CDLL(None); mutex = (ctypes.c_char * 64)(); c.pthread_mutex_lock(mutex)"
    out, error = call(setup, "return c.pthread_mutex_lock(mutex)")
    assert out == ""
    assert "WorkerDied: a worker of parallel_map" in error
    assert "waits forever at item 0: 0" in error


def test_a_wait_that_a_signal_handler_ends_is_left_alone() -> None:
    work = """import signal
    event = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: event.set())
    signal.alarm(6)
    event.wait()
    return i"""
    assert call("pass", work) == ("done\n", "")


@pytest.mark.parametrize("use", ["asyncio.run(same(i))", "loop.run_until_complete(same(i))"])
def test_event_loops_work_in_workers(use: str) -> None:
    setup = "loop = asyncio.new_event_loop(); loop.run_until_complete(same(1))"
    assert call(setup, f"return {use}", end="loop.close()") == ("done\n", "")


def test_a_function_that_cannot_be_loaded_in_a_new_interpreter_is_an_error_with_the_reason() -> None:
    setup = "work = type('Work', (), {'__reduce__': lambda _: (eval, ('1/0',)), '__call__': lambda _, i: i})()"
    out, error = call(setup, "return i", backend="spawn")
    assert out == ""
    assert "ZeroDivisionError" in error
    assert "the function can't be loaded in a worker" in error
