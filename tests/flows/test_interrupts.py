"""However a run is ended from outside, nothing of it is left running, and nothing half-written."""

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
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.test_processes import latest
from tests.support import environment, flow_command, pids_in, run_flow, running, wait_for, wait_for_death, write_flow

# Three branches, each with a child, all telling their process ids by the names of files.
FLOW = """
import os, signal, subprocess, sys, time
def tell(pid):
    os.makedirs("pids", exist_ok=True)
    open(f"pids/{{pid}}", "w").close()
class F(FlowSpec):
    @step
    def start(self):
        tell(os.getppid())
        self.items = range(3)
        self.next(self.work, foreach="items")
    @step
    def work(self):
        {body}
        tell(subprocess.Popen(["sleep", "300"]).pid)
        tell(os.getpid())
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
    """A run in the middle of its foreach, and the processes that belong to it."""
    if stubborn:
        body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with running(write_flow(folder, FLOW.format(body=body)), *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(folder / "pids")) >= PROCESSES)
        yield process, pids_in(folder / "pids")


def _assert_gone(folder: Path, pids: list[int]) -> None:
    assert [pid for pid in pids if not wait_for_death(pid, 10)] == []
    wait_for(lambda: not list(folder.rglob(".tmp-*")))  # a driver that lives may be amid its last record


def _end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=20)
    return process.returncode, output.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_run(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 130, an outcome in the store, no traceback; the tasks and their children are gone."""
    with _run(tmp_path) as (process, pids):
        os.killpg(process.pid, number)
        code, output = _end(process)
    assert code == 130, output
    assert "Cancelling" in output
    assert "was cancelled in" in output
    assert "Traceback" not in output
    _assert_gone(tmp_path, pids)
    run = latest(tmp_path)
    assert run.outcome is not None
    assert run.outcome.outcome == "cancelled"
    assert not run.successful
    assert run["start"].task.successful


def test_ctrl_c_at_a_terminal_cancels_the_run(tmp_path: Path) -> None:
    """A real terminal, which sends the signal to every process in the foreground."""
    file = write_flow(tmp_path, FLOW.format(body="pass"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(sys.executable, [sys.executable, str(file), "run", *ARGUMENTS], environment(TERM="xterm"))
    wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
    os.write(terminal, b"\x03")
    output = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
        while select.select([terminal], [], [], 20)[0] and (data := os.read(terminal, 65536)):
            output += data
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"was cancelled" in output
    assert b"Traceback" not in output
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_that_is_closed_cancels_the_run(tmp_path: Path, term: str) -> None:
    """With the live block and without: what can't be written any more is not what ended the run."""
    pid, terminal = _at_a_terminal(tmp_path, FLOW.format(body="pass"), term)
    os.close(terminal)
    os.waitpid(pid, 0)
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))
    outcome = latest(tmp_path).outcome
    assert outcome is not None
    assert outcome.outcome == "cancelled"


def test_a_signal_ends_the_tasks_however_slow_the_terminal_is(tmp_path: Path) -> None:
    """Nobody reads what they print; the last lines wait for whom they are shown to, and the tasks don't."""
    source = FLOW.format(body="pass").replace("time.sleep(300)", "os.execvp('yes', ['yes', 'y' * 200])")
    pid, terminal = _at_a_terminal(tmp_path, source, "xterm")
    logs = tmp_path / ".k8sflow/F/runs"
    wait_for(lambda: sum(path.stat().st_size for path in logs.glob("*/tasks/work/*/0/stdout")) > 4 << 20)
    os.kill(pid, signal.SIGINT)
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)


def _at_a_terminal(folder: Path, source: str, term: str) -> tuple[int, int]:
    """A run in the middle of its foreach: its process, and the terminal, which nobody reads."""
    file = write_flow(folder, source)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, str(file), "run", *ARGUMENTS], environment(TERM=term))
    wait_for(lambda: len(pids_in(folder / "pids")) >= PROCESSES)
    return pid, terminal


def test_output_on_a_full_disk_is_told(tmp_path: Path) -> None:
    """Without a traceback of ours; nothing is left running."""
    file = write_flow(tmp_path, FLOW.format(body="pass"))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, str(file), "run", *ARGUMENTS], cwd=tmp_path, env=environment(),
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=30,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "what the run prints can't be written: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))


@pytest.mark.slow
def test_tasks_that_ignore_the_signal_are_killed(tmp_path: Path) -> None:
    """After three seconds."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.send_signal(signal.SIGINT)
        code, _ = _end(process)
    assert code == 130
    _assert_gone(tmp_path, pids)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    """Saying how to go on; and nothing is left running all the same."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        while b"Cancelling" not in process.stdout.readline():
            pass
        wait_for(lambda: _sends_until_gone(process, signal.SIGINT))
        assert process.returncode == 130
        assert b"To go on with it: " in process.stdout.read()
        _assert_gone(tmp_path, pids)


def _sends_until_gone(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    process.send_signal(number)
    return process.poll() is not None


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGINT, signal.SIGTERM),
    ],
)  # fmt: skip
def test_signals_within_a_second_are_one(tmp_path: Path, numbers: tuple[signal.Signals, signal.Signals]) -> None:
    """As `timeout`, a closed terminal and an IDE send them, to the process and to its group: the run is cancelled."""
    with _run(tmp_path) as (process, pids):
        process.send_signal(numbers[0])
        os.killpg(process.pid, numbers[1])
        code, output = _end(process)
    assert code == 130, output
    assert "was cancelled in" in output
    _assert_gone(tmp_path, pids)
    outcome = latest(tmp_path).outcome
    assert outcome is not None
    assert outcome.outcome == "cancelled"


@pytest.mark.slow
def test_a_later_sigterm_changes_nothing(tmp_path: Path) -> None:
    """A CI system follows SIGINT with SIGTERM after seconds; tasks that ignore the first are still ended in order."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.send_signal(signal.SIGINT)
        wait_for(lambda: _sends_until_gone(process, signal.SIGTERM))
        code, output = _end(process)
    assert code == 130, output
    assert "was cancelled in" in output
    _assert_gone(tmp_path, pids)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("timeout", "2"), ("timeout", "4", "timeout", "2"), ("timeout", "-sINT", "2")])
def test_under_timeout_a_run_ends_as_cancelled(tmp_path: Path, words: tuple[str, ...]) -> None:
    """20 of 20 times; coreutils' timeout signals its child, then its group."""
    file = write_flow(tmp_path, FLOW.format(body="pass"))
    for _ in range(20 if words == ("timeout", "2") else 5):
        done = subprocess.run(
            [*words, sys.executable, str(file), "run", *ARGUMENTS], cwd=tmp_path, env=environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert "was cancelled in" in done.stdout, done.stdout + done.stderr
        outcome = latest(tmp_path).outcome
        assert outcome is not None
        assert outcome.outcome == "cancelled"
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))


def test_a_killed_driver_leaves_nothing_running(tmp_path: Path) -> None:
    """kill -9: the fork server sees it, and ends the tasks and what they started; `runs` tells that nobody goes on."""
    with _run(tmp_path, stubborn=True) as (process, pids):
        process.kill()
        process.wait()
        _assert_gone(tmp_path, pids)
    file = tmp_path / "flow.py"
    assert "  no driver  " in flow_command(file, "runs").stdout
    (told,) = json.loads(flow_command(file, "runs", "--json").stdout)
    assert (told["status"], told["driver_is_gone"]) == ("running", True)


DAEMON = "tell(subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_daemons_end_with_a_run_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """Those of tasks that have finished too; their process groups are their own."""
    source = FLOW.format(body="pass").replace("self.items = range(3)", f"self.items = range(3); {DAEMON}")
    with running(write_flow(tmp_path, source), *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES + 1)
        process.send_signal(number)
        process.wait(timeout=20)
        _assert_gone(tmp_path, pids_in(tmp_path / "pids"))


def test_a_daemon_outlives_a_run_that_succeeds(tmp_path: Path) -> None:
    """A step may start a server for whoever comes after the run."""
    source = FLOW.format(body="pass").replace("range(3)", "[]").replace("tell(os.getppid())", DAEMON)
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
    _assert_gone(tmp_path, pids)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_failure_ends_the_other_branches(tmp_path: Path) -> None:
    """They are stopped; what they started too."""
    body = (
        "if self.index == 1:\n            while len(os.listdir('pids')) < 5: time.sleep(0.01)\n"
        "            raise ValueError('no')"
    )
    with running(write_flow(tmp_path, FLOW.format(body=body)), *ARGUMENTS) as process:
        code, output = _end(process)
    assert code == 1
    assert "ValueError: no" in output
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))


@pytest.mark.slow
def test_nobody_listens_any_more(tmp_path: Path) -> None:
    """As with `| head -1`: the run is cancelled, leaves nothing running, and can be resumed."""
    source = FLOW.format(body="pass").replace("time.sleep(300)", "os.system('while :; do echo y; sleep 0.1; done')")
    file = write_flow(tmp_path, source)
    with running(file, *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert process.wait(timeout=20) == 1
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))
    outcome = latest(tmp_path).outcome
    assert outcome is not None
    assert (outcome.outcome, outcome.summary) == ("cancelled", "nobody reads any more what the run prints")
    write_flow(tmp_path, source.replace("while :; do echo y; sleep 0.1; done", "").replace('"sleep", "300"', '"true"'))
    done = flow_command(file, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path).successful


def test_ctrl_c_while_the_terminal_is_slow(tmp_path: Path) -> None:
    """The signal comes in the middle of a write; the message that it is heard must not break it."""
    source = FLOW.format(body="pass").replace("time.sleep(300)", "os.execvp('yes', ['yes', 'y' * 200])")
    with running(write_flow(tmp_path, source), *ARGUMENTS) as process:
        wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
        wait_for(lambda: "pipe_write" in Path(f"/proc/{process.pid}/wchan").read_text() or _is_full(process))
        process.send_signal(signal.SIGINT)
        code, output = _end(process)
    assert code == 130
    assert "RuntimeError" not in output
    assert "was cancelled" in output
    _assert_gone(tmp_path, pids_in(tmp_path / "pids"))


def _is_full(process: subprocess.Popen[bytes]) -> bool:
    """Whether nobody could write to the pipe now."""
    assert process.stdout is not None
    waiting = fcntl.ioctl(process.stdout.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder) > 60_000


def test_under_nohup_a_hang_up_is_nothing(tmp_path: Path) -> None:
    """Which is what nohup is for."""
    file = write_flow(tmp_path, FLOW.format(body="pass").replace("time.sleep(300)", "open('go').read()"))
    os.mkfifo(tmp_path / "go")
    process = subprocess.Popen(
        ["nohup", sys.executable, str(file), "run", *ARGUMENTS], cwd=tmp_path, env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(pids_in(tmp_path / "pids")) >= PROCESSES)
    os.killpg(process.pid, signal.SIGHUP)
    with (tmp_path / "go").open("w"):
        pass
    with contextlib.suppress(OSError):
        while process.poll() is None:
            fd = os.open(tmp_path / "go", os.O_WRONLY | os.O_NONBLOCK)
            os.close(fd)
    code, output = _end(process)
    assert code == 0, output
    for pid in pids_in(tmp_path / "pids"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_ctrl_c_before_the_run_begins_is_no_success(tmp_path: Path) -> None:
    """While the flow file is imported."""
    source = "import os, time\nopen('importing', 'w').close()\ntime.sleep(60)\n" + FLOW.format(body="pass")
    with running(write_flow(tmp_path, source)) as process:
        wait_for((tmp_path / "importing").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) in {130, -signal.SIGINT}
    assert not (tmp_path / ".k8sflow").exists()


@pytest.mark.parametrize("module", ["k8sflow.flow.spec", "k8sflow.cli.flow", "k8sflow.runtime.commands.run", "beside"])
def test_ctrl_c_during_the_imports_shows_no_traceback(tmp_path: Path, module: str) -> None:
    """Those of k8sflow, of its command line, and of the flow's file."""
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
