# ruff: noqa: E501  flows in one string each
"""Tasks are real processes: whatever they do to themselves, their output and each other is reported, and never hangs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

from tests.cgroups import Cgroup
from tests.sources import foreach
from tests.support import latest, run_flow, wait_for_death, write_flow

ONE_STEP = """
import ctypes, os, signal, subprocess, sys, threading, time
class F(FlowSpec):
    @step
    def start(self):
        {body}
        self.next(self.end)
    @step
    def end(self):
        print("the end")
"""


def _source(body: str) -> str:
    return ONE_STEP.format(body=body.replace("\n", "\n        "))


DEATHS = {
    "os._exit(0)": "ended with exit code 0 before its step was finished",
    "os._exit(3)": "ended with exit code 3 before its step was finished",
    "os.kill(os.getpid(), signal.SIGKILL)": "killed by SIGKILL",
    "os.kill(os.getpid(), signal.SIGTERM)": "killed by SIGTERM",
    "os.kill(os.getpid(), signal.SIGRTMIN + 5)": "killed by signal",
    "ctypes.string_at(0)": "killed by SIGSEGV",
    "os.abort()": "killed by SIGABRT",
    "sys.exit(0)": "called sys.exit(0)",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise ValueError('ünï 🦆')": "ValueError: ünï 🦆",
    "os.closerange(3, 100); os._exit(0)": "ended with exit code 0",
    "sys.stdout.close(); raise ValueError('closed')": "ValueError: closed",
    "threading.Timer(0, os._exit, [4]).start(); time.sleep(30)": "exit code 4",
    "os.kill(0, signal.SIGKILL)": "killed by SIGKILL",
    "return": "returned before it came to its self.next().",
    "os.execv('/bin/true', ['true'])": "ended with exit code 0 before",
    "C = ctypes.CFUNCTYPE(None); sys.setrecursionlimit(10**8); c = C(lambda: c()); c()": "killed by SIGSEGV",
}


@pytest.mark.parametrize("body", DEATHS)
def test_the_end_of_a_process_is_reported_as_it_was(tmp_path: Path, body: str) -> None:
    """The exit code is 1, the message has the step and the cause, and the store has the outcome."""
    done = run_flow(write_flow(tmp_path, _source(body)))
    assert done.returncode == 1, done.stdout + done.stderr
    assert DEATHS[body] in done.stdout
    assert re.search(r"F/\S+/start/0 failed \(user error\)", done.stdout)
    assert "Traceback" not in done.stderr, done.stderr
    assert "/k8sflow/task/" not in done.stdout, "frames of k8sflow don't help a user"
    run = latest(tmp_path)
    assert DEATHS[body] in str(run["start"].task.exception)
    assert run.has_ended
    assert not run.finished
    assert not run.successful


def test_a_step_that_kills_its_parent_ends_the_run_with_a_message(tmp_path: Path) -> None:
    """The parent of all tasks is k8sflow's; without it no task can start."""
    done = run_flow(write_flow(tmp_path, _source("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)")))
    assert done.returncode == 1
    assert "the process that starts tasks died" in done.stdout
    assert "start/0 failed" in done.stdout
    assert "Traceback" not in done.stderr, done.stderr


def test_a_step_can_not_end_its_parent_by_a_signal_that_can_be_handled(tmp_path: Path) -> None:
    """Only the driver ends the tasks' parent."""
    body = "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): os.kill(os.getppid(), number)"
    done = run_flow(write_flow(tmp_path, _source(body)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the end" in done.stdout


def test_a_step_that_kills_its_parent_last_is_reported_too(tmp_path: Path) -> None:
    """The moment is between its commit and its end, when the next task can't be started any more."""
    body = "import atexit; atexit.register(os.kill, os.getppid(), signal.SIGKILL); threading.Timer(0, int).start()"
    done = run_flow(write_flow(tmp_path, _source(body)))
    assert done.returncode == 1
    assert "the process that starts tasks died" in done.stdout
    assert "Traceback" not in done.stderr, done.stderr


# A Popen that records the process id as the name of a file.
WITH_P = """
import subprocess
from k8sflow import FlowSpec, step

def P(*a, **k):
    c = subprocess.Popen(*a, **k)
    open(f'{c.pid}.pid', 'w').close()
    return c.pid

"""
LEFTOVERS = {
    "sleeps": "subprocess.Popen(['sleep', '300'])",
    "writes": "subprocess.Popen(['yes', 'y' * 1000])",
    "writes to stderr": "subprocess.Popen('exec yes >&2', shell=True)",
    "daemon": "subprocess.Popen(['sleep', '300'], start_new_session=True)",
    "forked": "os.fork() or time.sleep(300)",
}


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_a_leftover_child_does_not_delay_the_run(tmp_path: Path, kind: str) -> None:
    """It may keep the task's pipes open, and even write to them without end."""
    body = f"{LEFTOVERS[kind]}\nopen('/proc/self/comm')"
    source = _source(body).replace("subprocess.Popen(", "self.child = P(")
    file = write_flow(tmp_path, source, head=WITH_P)
    done = run_flow(file)
    for path in tmp_path.glob("*.pid"):
        _kill(int(path.stem))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "the end" in done.stdout


@pytest.mark.parametrize("end", ["raise ValueError('no')", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)"])
def test_processes_of_a_failed_step_end_with_it(tmp_path: Path, end: str) -> None:
    """The next attempt finds its port and its GPU free."""
    body = f"child = subprocess.Popen(['sleep', '300'])\nopen('pid', 'w').write(str(child.pid))\n{end}"
    assert run_flow(write_flow(tmp_path, _source(body))).returncode == 1
    assert wait_for_death(int((tmp_path / "pid").read_text()), 5)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_all_output_is_kept_unchanged(tmp_path: Path) -> None:
    """It has no final newline, is binary, has progress bars and colours, or comes from children, on both streams."""
    body = (
        "sys.stdout.write('no newline')\nsys.stdout.flush()\nos.write(1, b'\\n\\xff\\xfe binary \\0\\n')\n"
        "for i in range(0, 101, 25):\n    sys.stdout.write(f'\\rdone {i}%')\n"
        "print()\nprint('\\x1b[31mred\\x1b[0m \\x1b[2Kcleared')\nsubprocess.run(['echo', 'from a child'])\n"
        "print('to stderr', file=sys.stderr)\nos.system('echo shell >&2')\nprint('日本語 🦆 \\ud800')\n"
        "sys.stdout.write('the last, unfinished')"
    )
    done = run_flow(write_flow(tmp_path, _source(body)))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.removeprefix("[start/0] ") for line in done.stdout.splitlines() if line.startswith("[start/0]")]
    for wanted in (
        "no newline",
        "\ufffd\ufffd binary ",
        "done 100%",
        "from a child",
        "to stderr",
        "shell",
        "日本語 🦆 \\ud800",
        "the last, unfinished",
    ):
        assert wanted in lines
    task = latest(tmp_path)["start"].task
    raw = task._run_store.read_log("start", "0", 0, "stdout")
    assert raw.startswith(b"no newline\n\xff\xfe binary \0\n\rdone 0%\rdone 25%")
    assert raw.endswith(b"the last, unfinished")
    assert task.stderr == "to stderr\nshell\n"


@pytest.mark.slow
def test_fifty_megabytes_of_output_pass(tmp_path: Path) -> None:
    """They reach the terminal and the store, in order."""
    body = "for i in range(500_000):\n    print(f'{i:099}')"
    done = run_flow(write_flow(tmp_path, _source(body)))
    assert done.returncode == 0
    numbers = re.findall(r"^\[start/0\] (\d{99})$", done.stdout, re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(500_000))
    assert len(latest(tmp_path)["start"].task.stdout) == 50_000_000


@pytest.mark.slow
def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    """An example is ten megabytes in one line, and a progress bar that never prints a newline."""
    body = "sys.stdout.write('x' * 10_000_000)\nfor i in range(100_000):\n    sys.stdout.write(f'\\r{i}')"
    done = run_flow(write_flow(tmp_path, _source(body)))
    assert done.returncode == 0
    assert len(latest(tmp_path)["start"].task.stdout) > 10_000_000


def test_changes_of_a_process_end_with_its_step(tmp_path: Path) -> None:
    """The next task sees no change of its folder, signal handlers, streams, environment or modules."""
    body = (
        "os.chdir('/')\nfor number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_IGN)\nos.environ['LEFT'] = 'x'\nsys.stdout.close()\nsys.stderr = None\n"
        "os.umask(0o777)\nsys.modules['json'] = None\nos.close(0)"
    )
    source = _source(body).replace(
        'print("the end")',
        "import json; self.seen = (os.getcwd(), os.environ.get('LEFT'), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,"
        " signal.getsignal(signal.SIGHUP) == signal.SIG_DFL, signal.getsignal(signal.SIGINT) == signal.default_int_handler, os.umask(0o22))",
    )
    done = run_flow(write_flow(tmp_path, source))
    assert done.returncode == 0, done.stdout + done.stderr
    cwd, variable, *handlers, umask = latest(tmp_path).data.seen  # type: ignore[union-attr]
    assert (cwd, variable, umask) == (str(tmp_path), None, 0o22)
    assert handlers == [True] * 3


def _got_by_branches(folder: Path, width: int, body: str, *arguments: str, top: str = "") -> list[object]:
    source = foreach(body, items=f"range({width})", top=top)
    done = run_flow(write_flow(folder, source), *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    found: list[object] = latest(folder).data.all  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_tasks_run_at_a_time_as_there_are_workers(tmp_path: Path, workers: int) -> None:
    """Each counts the others: all workers meet, and not more."""
    body = (
        "name = f'in_{self.index}'\nopen(name, 'w').close()\nmost = 0\ndeadline = time.monotonic() + 3\n"
        f"while time.monotonic() < deadline and most < {workers}:\n"
        "    most = max(most, len([n for n in os.listdir() if n.startswith('in_')]))\n    time.sleep(0.01)\n"
        "os.remove(name)\nself.got = most"
    )
    found = _got_by_branches(tmp_path, workers * 2, body, "--max-workers", str(workers))
    assert max(found) == workers  # type: ignore[type-var]


@pytest.mark.slow
def test_three_hundred_tasks_leak_nothing(tmp_path: Path) -> None:
    """The driver and the fork server have as many open files and children at the last task as at the first."""
    body = (
        "server = os.getppid()\n"
        "driver = int(open(f'/proc/{server}/stat').read().rpartition(')')[2].split()[1])\n"
        "self.got = [len(os.listdir(f'/proc/{pid}/fd')) for pid in (driver, server, 'self')]"
    )
    found = _got_by_branches(tmp_path, 300, body, "--max-workers", "2")
    for counts in zip(*found, strict=True):  # type: ignore[call-overload]
        # depending on a second task, a count varies by its five files; a leak raises the minimum too
        assert min(counts[-50:]) <= min(counts[:50]) + 5
        assert max(counts) <= min(counts) + 10


def test_random_numbers_differ_between_tasks(tmp_path: Path) -> None:
    """numpy's and Python's differ as if each task were a program of its own."""
    pytest.importorskip("numpy")
    body = "self.got = (float(np.random.random()), random.random())"
    found = _got_by_branches(tmp_path, 4, body, top="import numpy as np")
    assert len({pair[0] for pair in found}) == len({pair[1] for pair in found}) == 4  # type: ignore[index]


def test_a_seed_at_module_level_holds_in_every_task(tmp_path: Path) -> None:
    """The author has asked for it."""
    body = "self.got = float(np.random.random())"
    found = _got_by_branches(tmp_path, 3, body, top="import numpy as np\nnp.random.seed(5)")
    assert len(set(found)) == 1  # type: ignore[arg-type]


AT_IMPORT = {
    "changes directory": "import os; os.chdir('/')",
    "closes stdout": "import sys; sys.stdout.close(); sys.stdout = open('/dev/null', 'w')",
    "has no stdout": "import sys; sys.stdout = None",
    "replaces stdout": "import io, sys; sys.stdout = io.StringIO()",
    "ignores signals": "import signal\nfor s in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM): signal.signal(s, signal.SIG_IGN)",
    "blocks signals": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))",
    "closes all descriptors": "import os; os.closerange(0, 3)",
    "handles signals": "import signal; signal.signal(signal.SIGCHLD, lambda *a: None)",
    "sets an alarm": "import signal; signal.setitimer(signal.ITIMER_REAL, 60)",
    "opens many files": "import os; keep = [open('/dev/null') for _ in range(200)]",
    "is deep": "import sys; sys.setrecursionlimit(10_000)",
    "shadows modules": "import sys; json = os = time = signal = None",
    "has warnings as errors": "import warnings; warnings.simplefilter('error')",
    "sets a default timeout": "import socket; socket.setdefaulttimeout(0.001)",
}


@pytest.mark.parametrize("kind", AT_IMPORT)
def test_side_effects_of_importing_a_flow_file_break_nothing(tmp_path: Path, kind: str) -> None:
    """The run succeeds, its results can be read, and the printed text goes into no file of the run."""
    source = (
        AT_IMPORT[kind]
        + "\nclass F(FlowSpec):\n    @step\n    def start(self):\n        self.x = 5\n        self.next(self.end)\n    @step\n    def end(self): pass\n"
    )
    done = run_flow(write_flow(tmp_path, source))
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path).data.x == 5  # type: ignore[union-attr]
    (lock,) = tmp_path.glob(".k8sflow/F/runs/*/driver.lock")
    assert lock.read_text().count("\n") == 0


def test_a_terminal_without_unicode_causes_no_failure(tmp_path: Path) -> None:
    """Characters that it can't show are replaced; the store has the original."""
    done = run_flow(
        write_flow(tmp_path, _source("print('日本語 🦆 ü')\nraise ValueError('ü 日')")), PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 1
    assert "UnicodeEncodeError" not in done.stdout + done.stderr
    assert "ValueError" in done.stdout
    assert latest(tmp_path)["start"].task.stdout == "日本語 🦆 ü\n"


@pytest.mark.slow
def test_more_workers_than_files_may_be_open(tmp_path: Path) -> None:
    """Each running task needs three; the shell's limit is lower than the machine's."""
    top = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))"
    body = "time.sleep(0.2); self.got = resource.getrlimit(resource.RLIMIT_NOFILE)[0]"
    found = _got_by_branches(tmp_path, 40, body, "--max-workers", "40", top=top)
    assert found == [64] * 40


@pytest.mark.parametrize("most", [64, 24])
def test_where_few_files_may_be_open_fewer_tasks_run_at_a_time(tmp_path: Path, most: int) -> None:
    """A limit that can't be raised is reported, and causes no failure."""
    top = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))"
    source = foreach("time.sleep(0.02); self.got = 1", items="range(20)", top=top)
    done = run_flow(write_flow(tmp_path, source), "--max-workers", "20")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "at a time, not 20: there can't be more open files" in done.stdout


@pytest.mark.slow
def test_under_a_low_limit_of_files_both_streams_are_kept(tmp_path: Path) -> None:
    """A task that has written to both needs seven open files, not five."""
    top = "import resource, time; resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))"
    body = "print('out', flush=True); print('err', file=sys.stderr, flush=True); time.sleep(1); self.got = 1"
    done = run_flow(write_flow(tmp_path, foreach(body, items="range(40)", top=top)), "--max-workers", "40")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    tasks = list(latest(tmp_path)["work"])
    assert [(task.stdout, task.stderr) for task in tasks] == [("out\n", "err\n")] * 40


def test_a_death_is_reported_where_the_task_damaged_its_own_record(tmp_path: Path) -> None:
    """The run ends with an error instead of waiting for a task whose end can't be read."""
    body = """folder = os.path.join(os.environ["K8SFLOW_ROOT"], "F/runs", current.run_id, "tasks/start/0")
os.makedirs(folder, exist_ok=True)
open(os.path.join(folder, "commit.json"), "w").write("{")
os._exit(1)"""
    file = write_flow(tmp_path, "from k8sflow import current\n" + _source(body))
    done = run_flow(file, K8SFLOW_ROOT=str(tmp_path / ".k8sflow"))
    assert done.returncode == 1
    assert "commit.json" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("most", [2, 3, 4])
def test_a_limit_of_processes_is_reported(tmp_path: Path, most: int) -> None:
    """The report, with advice, is the same for the tasks' parent, the driver's thread, and a task."""
    file = write_flow(tmp_path, _source("pass"))
    group = Cgroup("pids", f"k8sflow-test-{os.getpid()}")
    try:
        group.write("pids.max", most)
        output = group.run(
            f"import subprocess, sys\ndone = subprocess.run([sys.executable, {str(file)!r}, 'run'], "
            "capture_output=True, text=True)\nprint(done.returncode, done.stdout, done.stderr)"
        )
    finally:
        group.remove()
    assert output.startswith("1 "), output
    assert "no process can be started for" in output
    assert "ulimit -u" in output
    assert "Traceback" not in output


def test_k8sflow_leaves_no_file_open(tmp_path: Path) -> None:
    """`python -X dev` would report one."""
    done = run_flow(write_flow(tmp_path, _source("pass")), PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
