"""A flow file that starts threads when it is imported: each task is a new interpreter, in which they run too."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from tests.sources import foreach
from tests.support import latest, run_flow, running, wait_for, wait_for_death, write_flow

# The thread holds the lock nearly always: in a forked process nobody would ever release it.
THREAD = """
import threading
lock = threading.Lock()
def hold():
    while True:
        with lock:
            time.sleep(0.02)
threading.Thread(target=hold, daemon={daemon}, name="from the import").start()
"""
BODY = (
    "with lock: alive = [t.name for t in threading.enumerate()]; "
    "self.got = (self.input, self.word, 'from the import' in alive); print('🦆', self.input, flush=False)"
)


def _flow(folder: Path, body: str, *, daemon: bool = True) -> Path:
    word = 'word = Parameter("word", default="none")'
    source = foreach(body, items='["a", "b"]', top=THREAD.format(daemon=daemon), members=word)
    return write_flow(folder, source)


def test_a_flow_with_threads_runs(tmp_path: Path) -> None:
    """It has parameters, output, and warnings as errors."""
    done = run_flow(_flow(tmp_path, BODY), "--word", "日本", PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path).data.all == [("a", "日本", True), ("b", "日本", True)]  # type: ignore[union-attr]
    assert "[work/0] 🦆 a" in done.stdout
    assert "[work/1] 🦆 b" in done.stdout


@pytest.mark.slow
def test_a_flow_that_changes_the_working_folder_is_found(tmp_path: Path) -> None:
    """It is started by a relative path."""
    file = _flow(tmp_path, BODY)
    file.write_text("import os; os.chdir('/')\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    done = run_flow(file.relative_to(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("os._exit(0)", "ended with exit code 0 before its step was finished"),
        ("sys.exit(0)", "called sys.exit(0)"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
)
def test_its_failures_are_reported(tmp_path: Path, body: str, words: str) -> None:
    """The reports are those of any flow."""
    done = run_flow(_flow(tmp_path, body))
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_a_task_ends_without_the_threads_of_the_import(tmp_path: Path) -> None:
    """It waits for those of its step. The command itself waits for all, as any Python program does."""
    body = "self.got = 1; threading.Thread(target=lambda: (time.sleep(0.3), print('late')), name='step').start()"
    with running(_flow(tmp_path, body, daemon=False)) as process:
        assert process.stdout is not None
        output = b""
        while b"Results:" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        assert output.count(b"late") == 2
        process.kill()


@pytest.mark.slow
def test_the_lock_of_its_driver_is_held_until_its_tasks_have_ended(tmp_path: Path) -> None:
    """The fork server holds it and the tasks don't, so that a new driver never runs anything beside them."""
    body = "open(f'{os.getppid()}.server', 'w').close(); open(f'{os.getpid()}.pid', 'w').close(); time.sleep(300)"
    with running(_flow(tmp_path, body), "--max-workers", "2") as process:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        (server,) = (int(path.stem) for path in tmp_path.glob("*.server"))
        tasks = [int(path.stem) for path in tmp_path.glob("*.pid")]
        assert [_has_lock(pid) for pid in (process.pid, server, *tasks)] == [True, True, False, False]
        process.kill()
        (path,) = tmp_path.glob(".k8sflow/F/runs/*/driver.lock")
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert not [pid for pid in tasks if not wait_for_death(pid, 0)]


def _has_lock(pid: int) -> bool:
    """Report if a process has the driver's lock open."""
    return any(os.readlink(path).endswith("driver.lock") for path in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.slow
def test_tasks_end_even_if_another_process_has_the_drivers_socket(tmp_path: Path) -> None:
    """A thread of the import has forked it, and it inherited the socket; the kernel signals the server."""
    fork = "lambda: (wait(), os.fork() or (open(f'{os.getpid()}.child', 'w').close(), time.sleep(60), os._exit(0)))"
    top = (
        "import glob, os, sys, threading, time\nfrom tests.waiting import wait_for\n"
        "def wait():\n    wait_for(lambda: glob.glob('*.pid'))\n"
        f"if 'step' not in sys.argv: threading.Thread(target={fork}, daemon=True).start()\n"
    )
    file = _flow(tmp_path, "open(f'{os.getpid()}.pid', 'w').close(); time.sleep(300)")
    file.write_text(top + file.read_text(encoding="utf-8"), encoding="utf-8")
    with running(file, "--max-workers", "2") as process:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2 and list(tmp_path.glob("*.child")))
        tasks = [int(path.stem) for path in tmp_path.glob("*.pid")]
        process.kill()
        try:
            assert [pid for pid in tasks if not wait_for_death(pid, 10)] == []
        finally:
            for path in tmp_path.glob("*.child"):
                os.kill(int(path.stem), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_all_its_processes_end(tmp_path: Path, number: signal.Signals) -> None:
    """They end after Ctrl-C, and after a kill of the driver."""
    body = "open(f'{os.getpid()}.pid', 'w').close(); open(f'{os.getppid()}.pid', 'w').close(); time.sleep(300)"
    with running(_flow(tmp_path, body), "--max-workers", "2") as process:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) >= 3)
        pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
        os.kill(process.pid, number)
        process.communicate(timeout=20)
        assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert [pid for pid in pids if not wait_for_death(pid, 10)] == []
