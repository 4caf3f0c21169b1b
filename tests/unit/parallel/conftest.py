"""Fixtures for parallel_map; each test must leave nothing behind."""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from k8sflow.parallel import Backend, loop
from k8sflow.parallel.forking import private_fds
from tests.cgroups import Cgroup, limited_memory
from tests.support import own_children

DEADLINE_SECONDS = 180


def traces() -> dict[str, object]:
    """Everything that a call could leave behind: descriptors, children, threads, shared memory, signal handling."""
    gc.collect()
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "children": own_children(),
        "threads": threading.active_count(),
        # except that of tests that run in other processes at the same time
        "shared memory": sorted(
            name for name in os.listdir("/dev/shm") if not re.match(r"(sem\.)?(loky|joblib|test_loadable)", name)
        ),
        "private descriptors": sorted(private_fds),
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    }


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    before = traces()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(DEADLINE_SECONDS)
    yield
    signal.alarm(0)
    assert traces() == before


def _too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"the test hangs: not done after {DEADLINE_SECONDS} s")


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    method: str = request.param
    monkeypatch.setattr(loop, "START_METHOD", method)
    return method


@pytest.fixture(params=["fork", "spawn", "threads"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Each way to run the function, as the `backend` argument."""
    if request.param == "threads":
        return "threads"
    monkeypatch.setattr(loop, "START_METHOD", request.param)
    return "processes"


@pytest.fixture
def memory_limited() -> Iterator[Callable[[str], str]]:
    """Runs a script under a limit of 200 MiB of memory."""
    with limited_memory(200) as group:
        yield group.run


@pytest.fixture
def cpu_group() -> Iterator[Cgroup]:
    group = Cgroup("cpu", f"k8sflow-test-{os.getpid()}")
    yield group
    group.remove()
