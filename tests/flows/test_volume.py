"""Output of hundreds of megabytes: the driver's memory stays small, the log has every byte, and nothing hangs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import foreach
from tests.support import environment, running, wait_for, write_flow

DRIVER_MEGABYTES = 150
# A separate process, since a child's peak starts with the memory of its parent at the fork (getrusage(2)).
MEASURED = """
import pathlib, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def _peak_megabytes(file: Path, *arguments: str) -> tuple[int, float, bytes]:
    """Run a flow; return its exit code, its driver's and tasks' peak memory, and the end of its output."""
    peak = file.parent / "peak"
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURED, str(peak), sys.executable, str(file), "run", *arguments],
        cwd=file.parent,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    tail = b""
    while data := os.read(process.stdout.fileno(), 1 << 16):
        tail = (tail + data)[-10_000:]
    process.stdout.close()
    return process.wait(), int(peak.read_text()) / 1024, tail


def _logs(folder: Path) -> list[int]:
    return sorted(path.stat().st_size for path in folder.glob(".k8sflow/F/runs/*/tasks/work/*/0/stdout"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("yes | head -c 300M", id="short lines"),
        pytest.param("head -c 300M /dev/zero", id="one line, binary"),
        pytest.param("yes $(printf '%03000d' 7) | head -c 300M", id="long lines"),
    ],
)
def test_a_step_that_prints_hundreds_of_megabytes(tmp_path: Path, command: str) -> None:
    """All of it is in the log; the shown part ends at a limit, with a message that has the command for the rest."""
    body = f'subprocess.run(["sh", "-c", {command!r}], check=True)'
    code, peak, tail = _peak_megabytes(write_flow(tmp_path, foreach(body, items="range(1)")))
    assert code == 0, tail
    assert _logs(tmp_path) == [300 << 20]
    assert peak < DRIVER_MEGABYTES
    assert re.search(rb"what follows is not shown here, but kept: \S*python", tail)
    assert b" logs " in tail


@pytest.mark.slow
def test_many_tasks_that_print_at_once(tmp_path: Path) -> None:
    """Eight run at a time, each with small writes; their lines don't mix."""
    body = 'subprocess.run(["sh", "-c", f"yes {self.index}-{chr(120) * 100} | head -n 20000"], check=True)'
    file = write_flow(tmp_path, foreach(body, items="range(8)"))
    process = subprocess.run(
        [sys.executable, str(file), "run", "--max-workers", "8"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in process.stdout.splitlines() if "xxx" in line]
    assert len(lines) == 8 * 20_000
    assert set(lines) == {f"[work/{i}] {i}-{'x' * 100}" for i in range(8)}
    assert _logs(tmp_path) == [20_000 * 103] * 8


def test_a_task_waits_for_its_reader(tmp_path: Path) -> None:
    """Nobody reads: the driver buffers little, the step is blocked; and Ctrl-C ends everything at once."""
    body = 'os.execvp("yes", ["yes", "y" * 1000])'
    with running(write_flow(tmp_path, foreach(body, items="range(2)")), "--max-workers", "2") as process:
        log = tmp_path / ".k8sflow/F/runs"

        def written() -> int:
            return sum(path.stat().st_size for path in log.glob("*/tasks/work/*/0/stdout"))

        wait_for(lambda: written() > 4 << 20)
        seen = -1
        while seen != (seen := written()):
            wait_for(lambda: _is_waiting(process.pid))
        assert seen < 20 << 20
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) < DRIVER_MEGABYTES << 10
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert b"was cancelled" in output


def _is_waiting(pid: int) -> bool:
    """Report if every thread of a process sleeps."""
    return all("S (sleeping)" in (path / "status").read_text() for path in Path(f"/proc/{pid}/task").iterdir())
