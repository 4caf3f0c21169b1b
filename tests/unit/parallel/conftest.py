"""What every test of parallel_map leaves behind: nothing."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k8sflow.parallel import Backend, loop
from k8sflow.parallel.cgroups import cgroup_folders
from k8sflow.parallel.forking import private_fds

DEADLINE_SECONDS = 180


def traces() -> dict[str, object]:
    """All that a map could leave: descriptors, children, threads, shared memory, signal handling."""
    gc.collect()
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "children": sorted(child for task in Path("/proc/self/task").iterdir() for child in children(task)),
        "threads": threading.active_count(),
        "shared memory": sorted(os.listdir("/dev/shm")),
        "private descriptors": sorted(private_fds),
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    }


def children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
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
    """Every way to run the function; as the `backend` argument."""
    if request.param == "threads":
        return "threads"
    monkeypatch.setattr(loop, "START_METHOD", request.param)
    return "processes"


class Cgroup:
    """A cgroup of the test's own, v2 where its controller is there and else v1."""

    def __init__(self, controller: str, name: str) -> None:
        inner = cgroup_folders(controller)[0]
        self.version = 2 if Path(inner, "cgroup.procs").exists() and "cgroup.controllers" in os.listdir(inner) else 1
        self.folder = Path(inner, name)
        self.folder.mkdir()

    def write(self, file: str, value: object, *, inner: str = "") -> None:
        (self.folder / inner / file).write_text(str(value))

    def run(self, code: str, *, inner: str = "") -> str:
        """What a script prints that runs within."""
        join = f"open({str(self.folder / inner / 'cgroup.procs')!r}, 'w').write('0')\n"
        done = subprocess.run(
            [sys.executable, "-c", join + code], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def remove(self) -> None:
        for folder in sorted(self.folder.rglob("*/"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        self.folder.rmdir()


@pytest.fixture
def memory_limited() -> Iterator[Callable[[str], str]]:
    """Runs a script under a limit of 200 MiB of memory."""
    group = Cgroup("memory", f"k8sflow-test-{os.getpid()}")
    group.write("memory.max" if group.version == 2 else "memory.limit_in_bytes", 200 * 2**20)
    yield group.run
    group.remove()


@pytest.fixture
def cpu_group() -> Iterator[Cgroup]:
    group = Cgroup("cpu", f"k8sflow-test-{os.getpid()}")
    yield group
    group.remove()
