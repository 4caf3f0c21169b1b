"""Ends of a run from outside: no process is left running, and no file is incomplete."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import (
    environment,
    flow_command,
    latest,
    pids_in,
    run_flow,
    running,
    started,
    wait_for,
    wait_for_death,
    write_flow,
)

# Three branches, each with a child; all write their process ids as the names of files.
FLOW = """
import os, signal, subprocess, sys, time
from tests.waiting import wait_for
def mark(pid):
    os.makedirs("pids", exist_ok=True)
    open(f"pids/{{pid}}", "w").close()
class F(FlowSpec):
    @step
    def start(self):
        mark(os.getppid())
        self.items = range(3)
        self.next(self.work, foreach="items")
    @step
    def work(self):
        {body}
        mark(subprocess.Popen(["sleep", "300"]).pid)
        mark(os.getpid())
        time.sleep(300)
        self.next(self.join)
    @step
    def join(self, inputs): self.next(self.end)
    @step
    def end(self): pass
"""
ARGUMENTS = ("--max-workers", "3")
PROCESSES = 7  # the fork server, three tasks, their children


@contextlib.contextmanager
def _run(
    folder: Path, body: str = "pass", *, stubborn: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Start a run, and yield it in the middle of its foreach, with the processes that belong to it."""
    if stubborn:
        body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with running(write_flow(folder, FLOW.format(body=body)), *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(folder / "pids")) >= PROCESSES)
        yield process, pids_in(folder / "pids")


def _assert_dead(folder: Path, pids: list[int]) -> None:
    assert [pid for pid in pids if not wait_for_death(pid, 10)] == []
    wait_for(lambda: not list(folder.rglob(".tmp-*")))  # a living driver may be writing its last record


def _end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=20)
    return process.returncode, output.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_run(tmp_path: Path, number: signal.Signals) -> None:
    """The exit code is 130, the store has an outcome, there is no traceback; tasks and their children have ended."""
    with _run(tmp_path) as (process, pids):
        os.killpg(process.pid, number)
        code, output = _end(process)
    assert code == 130, output
    assert "Cancelling" in output
    assert "was cancelled in" in output
    assert "Traceback" not in output
    _assert_dead(tmp_path, pids)
    run = latest(tmp_path)
    assert run.outcome is not None
    assert run.outcome.outcome == "cancelled"
    assert not run.successful
    assert run["start"].task.successful


def test_ctrl_c_at_a_terminal_cancels_the_run(tmp_path: Path) -> None:
    """The terminal is a real one, which sends the signal to every process in the foreground."""
    file = write_flow(tmp_path, FLOW.format(body="pass"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(sys.executable, [sys.executable, str(file), "run", *ARGUMENTS], environment(TERM="xterm"))
    wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
    os.write(terminal, b"\x03")
    output = b""
    with contextlib.suppress(OSError):  # EIO: no process has the terminal open any more
        while select.select([terminal], [], [], 20)[0] and (data := os.read(terminal, 65536)):
            output += data
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"was cancelled" in output
    assert b"Traceback" not in output
    _assert_dead(tmp_path, pids_in(tmp_path / "pids"))


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_closed_terminal_cancels_the_run(tmp_path: Path, term: str) -> None:
    """This holds with and without the live block; the failing writes are not reported as the end of the run."""
    pid, terminal = _at_a_terminal(tmp_path, FLOW.format(body="pass"), term)
    os.close(terminal)
    os.waitpid(pid, 0)
    _assert_dead(tmp_path, pids_in(tmp_path / "pids"))
    outcome = latest(tmp_path).outcome
    assert outcome is not None
    assert outcome.outcome == "cancelled"


def test_a_signal_ends_the_tasks_despite_a_slow_terminal(tmp_path: Path) -> None:
    """Nobody reads their output; its last lines wait for the terminal, but the tasks don't."""
    source = FLOW.format(body="pass").replace("time.sleep(300)", "os.execvp('yes', ['yes', 'y' * 200])")
    pid, terminal = _at_a_terminal(tmp_path, source, "xterm")
    logs = tmp_path / ".k8sflow/F/runs"
    wait_for(lambda: sum(path.stat().st_size for path in logs.glob("*/tasks/work/*/0/stdout")) > 4 << 20)
    os.kill(pid, signal.SIGINT)
    _assert_dead(tmp_path, pids_in(tmp_path / "pids"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)


def _at_a_terminal(folder: Path, source: str, term: str) -> tuple[int, int]:
    """Start a run, and yield its process in the middle of its foreach, and the terminal, which nobody reads."""
    file = write_flow(folder, source)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, str(file), "run", *ARGUMENTS], environment(TERM=term))
    wait_for(lambda: len(pids_in(folder / "pids")) >= PROCESSES)
    return pid, terminal


def test_output_on_a_full_disk_is_reported(tmp_path: Path) -> None:
    """There is no traceback of k8sflow, and nothing is left running."""
    file = write_flow(tmp_path, FLOW.format(body="pass"))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, str(file), "run", *ARGUMENTS],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == 1, done.stderr
    assert "what the run prints can't be written: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr
    _assert_dead(tmp_path, pids_in(tmp_path / "pids"))


@pytest.mark.slow
def test_tasks_that_ignore_the_signal_are_killed(tmp_path: Path) -> None:
    """The driver waits for three seconds."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.send_signal(signal.SIGINT)
        code, _ = _end(process)
    assert code == 130
    _assert_dead(tmp_path, pids)


def test_output_after_the_signal_is_stored(tmp_path: Path) -> None:
    """A step may report while it cleans up, whether it then ends by itself or is killed."""
    body = "signal.signal(signal.SIGTERM, lambda *_: print('CLEANING UP', flush=True))"
    with _run(tmp_path, body) as (process, pids):
        process.send_signal(signal.SIGINT)
        code, _ = _end(process)
    assert code == 130
    _assert_dead(tmp_path, pids)
    logs = [file.read_text() for file in (tmp_path / ".k8sflow").rglob("work/*/0/stdout*")]
    assert sum("CLEANING UP" in log for log in logs) >= 3


def test_a_second_ctrl_c_exits_at_once(tmp_path: Path) -> None:
    """The output says how to continue the run; nothing is left running either."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        while b"Cancelling" not in (line := process.stdout.readline()):
            assert line, "it ended without cancelling"
        wait_for(lambda: _sends_until_dead(process, signal.SIGINT))
        assert process.returncode == 130
        assert b"To continue it: " in process.stdout.read()
        _assert_dead(tmp_path, pids)


def _sends_until_dead(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    process.send_signal(number)
    return process.poll() is not None


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGINT, signal.SIGTERM),
    ],
)
def test_signals_within_a_second_count_as_one(tmp_path: Path, numbers: tuple[signal.Signals, signal.Signals]) -> None:
    """`timeout`, a closed terminal and an IDE send them to the process and to its group: the run is cancelled."""
    with _run(tmp_path) as (process, pids):
        process.send_signal(numbers[0])
        os.killpg(process.pid, numbers[1])
        code, output = _end(process)
    assert code == 130, output
    assert "was cancelled in" in output
    _assert_dead(tmp_path, pids)
    outcome = latest(tmp_path).outcome
    assert outcome is not None
    assert outcome.outcome == "cancelled"


@pytest.mark.slow
def test_a_later_sigterm_changes_nothing(tmp_path: Path) -> None:
    """A CI system sends SIGTERM seconds after SIGINT; tasks that ignore the first are still ended in order."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.send_signal(signal.SIGINT)
        wait_for(lambda: _sends_until_dead(process, signal.SIGTERM))
        code, output = _end(process)
    assert code == 130, output
    assert "was cancelled in" in output
    _assert_dead(tmp_path, pids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "runs"),
    [(("timeout", "600"), 20), (("timeout", "900", "timeout", "600"), 5), (("timeout", "-sINT", "600"), 5)],
)
def test_under_timeout_a_run_ends_as_cancelled(tmp_path: Path, words: tuple[str, ...], runs: int) -> None:
    """coreutils' timeout signals its child, then its group; every run is cancelled."""
    for number in range(runs):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = write_flow(folder, FLOW.format(body="pass"))
        with started([*words, sys.executable, str(file), "run", *ARGUMENTS], folder) as process:
            wait_for(lambda found=folder / "pids": pids_in(found))  # at another moment of the run each time
            inner = process.pid if words.count("timeout") == 1 else _children(process.pid)[0]
            os.kill(inner, signal.SIGALRM)  # the alarm of timeout(1) itself: its time is over
            output = _end(process)[1]
        assert "was cancelled in" in output
        outcome = latest(folder).outcome
        assert outcome is not None
        assert outcome.outcome == "cancelled"
        assert all(wait_for_death(pid, 30) for pid in pids_in(folder / "pids"))


def test_a_killed_driver_leaves_nothing_running(tmp_path: Path) -> None:
    """After kill -9 the fork server ends the tasks and their processes; `runs` shows that the run has no driver."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.kill()
        process.wait()
        _assert_dead(tmp_path, pids)
    file = tmp_path / "flow.py"
    assert "  no driver  " in flow_command(file, "runs").stdout
    (shown,) = json.loads(flow_command(file, "runs", "--json").stdout)
    assert (shown["status"], shown["driver_is_dead"]) == ("running", True)


DAEMON = "mark(subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_daemons_end_with_an_ended_run(tmp_path: Path, number: signal.Signals) -> None:
    """Those of finished tasks end too; they have their own process groups."""
    source = FLOW.format(body="pass").replace("self.items = range(3)", f"self.items = range(3); {DAEMON}")
    with running(write_flow(tmp_path, source), *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES + 1)
        process.send_signal(number)
        process.wait(timeout=20)
        _assert_dead(tmp_path, pids_in(tmp_path / "pids"))


def test_a_daemon_outlives_a_successful_run(tmp_path: Path) -> None:
    """A step may start a server for use after the run."""
    source = FLOW.format(body="pass").replace("range(3)", "[]").replace("mark(os.getppid())", DAEMON)
    done = flow_command(write_flow(tmp_path, source), "run")
    assert done.returncode == 0, done.stdout + done.stderr
    (daemon,) = pids_in(tmp_path / "pids")
    os.kill(daemon, signal.SIGKILL)


def test_a_killed_fork_server_leaves_nothing_running(tmp_path: Path) -> None:
    """The driver ends the rest, and the run."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        (server,) = _children(process.pid)
        os.kill(server, signal.SIGKILL)
        code, output = _end(process)
    assert code == 1
    assert "the process that starts tasks died" in output
    _assert_dead(tmp_path, pids)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_failure_ends_the_other_branches(tmp_path: Path) -> None:
    """Their processes are ended too."""
    body = (
        "if self.index == 1:\n            wait_for(lambda: len(os.listdir('pids')) >= 5)\n"
        "            raise ValueError('no')"
    )
    with running(write_flow(tmp_path, FLOW.format(body=body)), *ARGUMENTS) as process:
        code, output = _end(process)
    assert code == 1
    assert "ValueError: no" in output
    _assert_dead(tmp_path, pids_in(tmp_path / "pids"))


@pytest.mark.slow
def test_a_closed_pipe_cancels_the_run(tmp_path: Path) -> None:
    """After `| head -1` the run is cancelled, leaves nothing running, and can be resumed."""
    source = FLOW.format(body="pass").replace("time.sleep(300)", "os.system('while :; do echo y; sleep 0.1; done')")
    file = write_flow(tmp_path, source)
    with running(file, *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert process.wait(timeout=20) == 1
    _assert_dead(tmp_path, pids_in(tmp_path / "pids"))
    outcome = latest(tmp_path).outcome
    assert outcome is not None
    assert (outcome.outcome, outcome.summary) == ("cancelled", "stdout was closed")
    write_flow(tmp_path, source.replace("while :; do echo y; sleep 0.1; done", "").replace('"sleep", "300"', '"true"'))
    done = flow_command(file, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path).successful


def test_ctrl_c_while_the_terminal_is_slow(tmp_path: Path) -> None:
    """The signal arrives in the middle of a write; the message about it must not break the write."""
    source = FLOW.format(body="pass").replace("time.sleep(300)", "os.execvp('yes', ['yes', 'y' * 200])")
    with running(write_flow(tmp_path, source), *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
        wait_for(lambda: "pipe_write" in Path(f"/proc/{process.pid}/wchan").read_text() or _is_full(process))
        process.send_signal(signal.SIGINT)
        code, output = _end(process)
    assert code == 130
    assert "RuntimeError" not in output
    assert "was cancelled" in output
    _assert_dead(tmp_path, pids_in(tmp_path / "pids"))


def _is_full(process: subprocess.Popen[bytes]) -> bool:
    """Report if no process could write to the pipe now."""
    assert process.stdout is not None
    waiting = fcntl.ioctl(process.stdout.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder) > 60_000


def test_a_hang_up_is_ignored_under_nohup(tmp_path: Path) -> None:
    """This is the purpose of nohup."""
    waits = "wait_for(lambda: os.path.exists('go'))"
    file = write_flow(tmp_path, FLOW.format(body="pass").replace("time.sleep(300)", waits))
    process = subprocess.Popen(
        ["nohup", sys.executable, str(file), "run", *ARGUMENTS],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
    os.killpg(process.pid, signal.SIGHUP)
    (tmp_path / "go").touch()
    code, output = _end(process)
    assert code == 0, output
    for pid in pids_in(tmp_path / "pids"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_ctrl_c_before_the_run_starts_is_not_a_success(tmp_path: Path) -> None:
    """The flow's file is being imported then."""
    source = "import os, time\nopen('importing', 'w').close()\ntime.sleep(60)\n" + FLOW.format(body="pass")
    with running(write_flow(tmp_path, source)) as process:
        wait_for((tmp_path / "importing").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) in {130, -signal.SIGINT}
    assert not (tmp_path / ".k8sflow").exists()


@pytest.mark.parametrize("module", ["k8sflow.flow.spec", "k8sflow.cli.flow", "k8sflow.runtime.commands.run", "beside"])
def test_ctrl_c_during_the_imports_shows_no_traceback(tmp_path: Path, module: str) -> None:
    """The imports are those of k8sflow, of its command line, and of the flow's file."""
    (tmp_path / "beside.py").write_text("")
    head = (
        "import signal, sys\nclass Interrupting:\n    def find_spec(self, name, *_):\n"
        f"        if name == '{module}': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\nfrom k8sflow import FlowSpec, step\nimport beside\n"
    )
    steps = ("start", "self.next(self.end)"), ("end", "...")
    source = "class F(FlowSpec):\n" + "".join(f"    @step\n    def {name}(self): {body}\n" for name, body in steps)
    done = run_flow(write_flow(tmp_path, source, head=head))
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


@pytest.mark.parametrize("instead", ["pass", "raise ImportError('C code') from None", "raise ImportError('C code')"])
def test_ctrl_c_counts_where_an_import_drops_it(tmp_path: Path, instead: str) -> None:
    """Native code that imports something makes an ImportError of it, or nothing."""
    dropping = f"""
        import signal
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            {instead}
    """
    (tmp_path / "native.py").write_text(textwrap.dedent(dropping))
    (tmp_path / "beside.py").write_text(
        "try:\n    import native\nexcept ImportError as e:\n    raise ImportError from e"
    )
    source = "import beside\n" + FLOW.format(body="pass")
    done = run_flow(write_flow(tmp_path, source))
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")
    assert not (tmp_path / ".k8sflow").exists()
