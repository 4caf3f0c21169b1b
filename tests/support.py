"""Helpers of the tests: flows from source, runs of them, and waiting with a deadline."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from k8sflow.client import Run
from k8sflow.flow.decorators.base import of, options_of
from k8sflow.flow.decorators.kubernetes import kubernetes
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests import waiting

DEADLINE_SECONDS = waiting.DEADLINE_SECONDS
wait_for = waiting.wait_for
HEAD = "from k8sflow import FlowSpec, Parameter, kubernetes, resources, step\n"
TAIL = "\nif __name__ == '__main__':\n    F()\n"
# Environment variables with these prefixes would change a run.
_PREFIXES = ("K8SFLOW_", "AWS_", "PYTHON")


def write_flow(folder: Path, source: str, name: str = "flow.py", *, head: str = HEAD, tail: str = TAIL) -> Path:
    """Write a flow file whose class is called F."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(head + textwrap.dedent(source) + tail, encoding="utf-8")
    return file


def load_flow(file: Path) -> type[FlowSpec]:
    """Return the class F of a flow file, imported as a module of its own."""
    name = f"flow_{abs(hash(str(file)))}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    flow: type[FlowSpec] = module.F
    return flow


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a process under test, without variables that would change a run."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_PREFIXES)}
    checkout = str(Path(__file__).resolve().parent.parent)
    return {**kept, "PYTHONPATH": checkout, **changes}


def pod_options(**written: Any) -> PodOptions:
    """Return the options that a user has written in ``@kubernetes(...)``."""

    @kubernetes(**written)
    def start(self: Any) -> None: ...

    found = options_of(of(start), "kubernetes")
    assert found is not None
    return PodOptions(**found)


def run_flow(file: Path, *arguments: str, cwd: Path | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run ``python flow.py run …`` to its end."""
    return flow_command(file, "run", *arguments, cwd=cwd, **changes)


def flow_command(
    file: Path, *arguments: str, cwd: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python flow.py …`` to its end."""
    return run_in(cwd or file.parent, sys.executable, str(file), *arguments, **changes)


def run_in(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder to its end."""
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=DEADLINE_SECONDS * 2,
        check=False,
    )


@contextmanager
def running(file: Path, *arguments: str, command: str = "run", **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``python flow.py run …``, or another command, in a session of its own, which is killed at the end."""
    with started([sys.executable, str(file), command, *arguments], file.parent, **changes) as process:
        yield process


@contextmanager
def started(words: Sequence[str], folder: Path, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in a folder, in a session of its own, which is killed at the end."""
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def in_python(code: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS * 2,
        check=False,
    )


def wait_for_death(pid: int, seconds: float = DEADLINE_SECONDS) -> bool:
    """Report if a process, which need not be a child of this one, ends in time; a zombie has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def latest(folder: Path, flow: str = "F") -> Run:
    """Return the last run of a flow whose file is in the folder."""
    store = FolderStore(str(folder / ".k8sflow"))
    return Run(RunStore(store, flow, max(store.list_folders(f"{flow}/runs/"))))


def pids_in(folder: Path) -> list[int]:
    """List the process ids that a flow under test has written as the names of files."""
    with suppress(FileNotFoundError):
        return [int(path.name) for path in folder.iterdir()]
    return []


def own_children() -> list[int]:
    """List the processes that this one has started, in any thread, and not waited for."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return sorted(found)
