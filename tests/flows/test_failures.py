"""Retries, timeouts and catch in runs of real processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from k8sflow.client import Run
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.sources import one_step
from tests.support import flow_command, run_flow, wait_for_death, write_flow

HEAD = "from k8sflow import FlowSpec, catch, current, retry, step, timeout\nimport os, signal, subprocess, sys, time\n"


def run(folder: Path, source: str, *arguments: str) -> tuple[Any, Run]:
    """Run a flow, and return its records."""
    done = run_flow(write_flow(folder, source, head=HEAD), "--run-id", "r", *arguments)
    return done, Run(RunStore(FolderStore(str(folder / ".k8sflow")), "F", "r"))


def test_a_failed_step_is_run_again(tmp_path: Path) -> None:
    """The attempts are visible in current, in the store, and in the output."""
    body = "print('attempt', current.retry_count)\n        self.n = 1 / (current.retry_count // 2)"
    done, found = run(tmp_path, one_step(body, "@retry(times=2, minutes_between_retries=0)"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ZeroDivisionError: integer division or modulo by zero" not in done.stdout
    assert "it is run again (retry 1 of 2)" in done.stdout
    assert "it is run again (retry 2 of 2)" in done.stdout
    task = found["start"].task
    assert (task.current_attempt, task.data.n, task.stdout) == (2, 1.0, "attempt 2\n")
    store = found.run_store
    assert store.attempts("start", "0") == [0, 1, 2]
    assert [store.read_outcome("start", "0", n).outcome for n in range(3)] == ["user_error", "user_error", "succeeded"]  # type: ignore[union-attr]
    assert store.read_log("start", "0", 0, "stdout") == b"attempt 0\n"


@pytest.mark.slow
def test_a_pause_between_retries_is_kept(tmp_path: Path) -> None:
    """A pause that is written out applies on this machine too."""
    began = time.monotonic()
    done, _ = run(tmp_path, one_step("assert current.retry_count", "@retry(times=1, minutes_between_retries=0.02)"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began > 1.2
    assert "it is run again in 1.2 s (retry 1 of 1)" in done.stdout


@pytest.mark.slow
def test_with_retry_applies_to_steps_without_their_own(tmp_path: Path) -> None:
    """times=0 excludes a step."""
    for name in ("once", "never"):
        (tmp_path / name).mkdir()
    again = "retry:times=1,minutes_between_retries=0"
    done, found = run(tmp_path / "once", one_step("assert current.retry_count"), "--with", again)
    assert done.returncode == 0, done.stdout + done.stderr
    done, found = run(tmp_path / "never", one_step("assert 0", "@retry(times=0)"), "--with", "retry:times=1")
    assert done.returncode == 1
    assert found.run_store.attempts("start", "0") == [0]


@pytest.mark.parametrize("crash", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(3)"])
def test_a_crash_is_retried(tmp_path: Path, crash: str) -> None:
    """It is retried like an exception."""
    done, found = run(
        tmp_path, one_step(f"current.retry_count or {crash}", "@retry(times=1, minutes_between_retries=0)")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["start"].task.current_attempt == 1


@pytest.mark.slow
def test_a_step_that_takes_too_long_is_ended_with_its_processes(tmp_path: Path) -> None:
    """It is killed after the grace period if no signal reaches it; the outcome is timed_out."""
    body = """signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        child = subprocess.Popen(["sleep", "1000"])
        print("pids", os.getpid(), child.pid, flush=True)
        time.sleep(1000)"""
    done, found = run(tmp_path, one_step(body, "@timeout(seconds=3, grace_seconds=0.5)"))
    assert done.returncode == 1
    assert "failed (timed out): the task took longer than its timeout of 3 s" in done.stdout
    pids = [int(word) for word in found["start"].task.stdout.split()[1:]]
    assert all(wait_for_death(pid) for pid in pids)
    outcome = found.run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "timed_out"


@pytest.mark.slow
def test_a_step_within_its_time_is_not_ended(tmp_path: Path) -> None:
    """A timeout is retried like an error."""
    body = "current.retry_count or time.sleep(1000)\n        self.n = current.retry_count"
    done, found = run(tmp_path, one_step(body, "@retry(times=1, minutes_between_retries=0)\n    @timeout(seconds=3)"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["start"].task.data.n == 1


CRASHES = [
    ("raise ValueError('no')", "builtins.ValueError", "no", "user_error"),
    ("os._exit(0)", "builtins.RuntimeError", "the task's process ended with exit code 0 before", "user_error"),
    (
        "os.kill(os.getpid(), signal.SIGKILL)",
        "builtins.RuntimeError",
        "the task's process was killed by SIGKILL",
        "user_error",
    ),
    ("sys.exit(1)", "builtins.SystemExit", "the step called sys.exit(1)", "user_error"),
    ("time.sleep(1000)", "k8sflow.errors.TimeoutException", "the task took longer than its timeout", "timed_out"),
]


@pytest.mark.parametrize(("crash", "kind", "text", "outcome"), CRASHES, ids=[crash[0] for crash in CRASHES])
def test_catch_lets_a_run_survive_any_end_of_a_step(
    tmp_path: Path, crash: str, kind: str, text: str, outcome: str
) -> None:
    """After the retries it has the exception, and the step's artifacts are kept unless its process was killed."""
    source = f"""
class F(FlowSpec):
    @step
    def start(self):
        self.before = "kept"
        self.items = ["good", "bad"]
        self.next(self.work, foreach="items")
    @catch(var="failed")
    @retry(times=1, minutes_between_retries=0)
    @timeout(seconds=3)
    @step
    def work(self):
        self.before, self.done = "changed", True
        if self.input == "bad":
            {crash}
        self.next(self.join)
    @step
    def join(self, inputs):
        self.seen = [(str(i.failed), i.before, hasattr(i, "done"), i.input) for i in inputs]
        failed = inputs[1].failed
        self.failed = (failed.type, failed.exception, failed.outcome)
        self.next(self.end)
    @step
    def end(self): pass
"""
    done, found = run(tmp_path, source)
    assert done.returncode == 0, done.stdout + done.stderr
    good, bad = found["join"].task.data.seen
    assert good == ("None", "changed", True, "good")
    assert bad[1:] == (("kept", False, "bad") if kind == "builtins.RuntimeError" else ("changed", True, "bad"))
    assert (found["join"].task.data.failed[0], found["join"].task.data.failed[2]) == (kind, outcome)
    assert found["join"].task.data.failed[1].startswith(text)
    assert "@catch lets the run continue, with the exception in self.failed" in done.stdout
    assert found.run_store.attempts("work", "1") == [0, 1]


@pytest.mark.slow
def test_catch_shows_the_exception_on_request(tmp_path: Path) -> None:
    """print_exception is true by default; a caught failure of the end finishes the run."""
    for decorator, shown in (("@catch(var='e')", True), ("@catch(print_exception=False)", False)):
        folder = tmp_path / str(shown)
        source = one_step("pass", end="raise ValueError('no')")
        source = source.replace("    @step\n    def end", f"    {decorator}\n    @step\n    def end")
        done, found = run(folder, source)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (found.status, found.finished, found.successful) == ("succeeded", True, False)  # as in Metaflow
        assert ("raise ValueError('no')" in done.stdout) is shown


TOGETHER = """
from k8sflow import parallel
from tests.waiting import wait_for
class F(FlowSpec):
    @step
    def start(self):
        self.next(self.train, num_parallel=3)
    {decorators}
    @parallel
    @step
    def train(self):
        me = current.parallel.node_index
        open(f"{{me}}.{{current.retry_count}}", "w").close()
        if me == 0:
            self.did = current.retry_count  # it has its result before the other one fails
        else:
            wait_for(lambda: len([n for n in os.listdir() if n.endswith(f".{{current.retry_count}}")]) == 3)
            {body}
        self.did = current.retry_count
        self.next(self.join)
    @step
    def join(self, inputs):
        self.all = [str(i.failed) if hasattr(i, "failed") else i.did for i in inputs]
        self.next(self.end)
    @step
    def end(self): pass
"""
# The third waits for the second, which fails twice.
FAILS = (
    "if me == 2 and current.retry_count < 2: time.sleep(1000)\n            assert me == 2 or current.retry_count >= 2"
)


def test_processes_that_know_each_other_are_retried_together(tmp_path: Path) -> None:
    """When one fails, those that wait for it are ended; all run again with one attempt number, as a single retry."""
    done, found = run(tmp_path, TOGETHER.format(decorators="@retry(times=2, minutes_between_retries=0)", body=FAILS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["join"].task.data.all == [2, 2, 2]
    assert [found.run_store.attempts("train", str(i)) for i in range(3)] == [[0, 1, 2]] * 3
    assert "(retry 2 of 2)" in done.stdout
    outcome = found.run_store.read_outcome("train", "2", 0)
    assert outcome is not None
    assert (outcome.outcome, "train/1" in outcome.summary) == ("cancelled", True)
    assert "train      " in done.stdout
    assert "3 done" in done.stdout


def test_a_process_that_dies_has_no_result_of_an_earlier_execution(tmp_path: Path) -> None:
    """The first one has a result when the second fails, and is killed when all run again: they run a third time."""
    body = (
        "if me == 1 and not current.retry_count:\n                "
        'wait_for(lambda: current.run["train"]["0"].finished)\n                raise ValueError'
    )
    source = TOGETHER.format(decorators="@retry(times=2, minutes_between_retries=0)", body=body).replace(
        "if me == 0:", "if me == 0:\n            if current.retry_count == 1: os.kill(os.getpid(), 9)"
    )
    done, found = run(tmp_path, source)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["join"].task.data.all == [2, 2, 2]
    commit = tmp_path / ".k8sflow/F/runs/r/tasks/train/1/commit.json"
    commit.write_text(commit.read_text().replace('"attempt":2', '"attempt":1'))
    done = flow_command(tmp_path / "flow.py", "resume", "join", "--origin-run-id", "r")
    assert done.returncode == 1
    assert "the results of train/0 and train/1 are of different executions: attempts 2 and 1." in done.stdout


def test_what_an_ended_process_has_started_in_other_sessions_ends_with_it(tmp_path: Path) -> None:
    """As the workers of torchrun: they would hold ports and GPUs during the retry."""
    body = """
            import subprocess
            from pathlib import Path
            if me == 1 and not current.retry_count:
                worker = subprocess.Popen(["sleep", "1000"], start_new_session=True)
                Path("worker").write_text(str(worker.pid))
                os.rename("worker", "started")
                worker.wait()
            if me == 2 and not current.retry_count:
                wait_for(lambda: os.path.exists("started"))
                raise ValueError
            self.is_there = True
            for _ in range(1000):
                self.is_there = self.is_there and os.path.exists("/proc/" + Path("started").read_text())
                time.sleep(0.01 if self.is_there else 0)
    """.strip()
    done, found = run(tmp_path, TOGETHER.format(decorators="@retry(times=1, minutes_between_retries=0)", body=body))
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["train"].task is not None
    assert [task.data.is_there for task in found["train"] if task.id != "0"] == [False, False]


def test_a_process_that_fails_for_good_ends_those_that_wait_for_it(tmp_path: Path) -> None:
    """The reported failure is that of this process; under @catch all processes without a result have it."""
    fails = f'wait_for(lambda: current.run["train"]["0"].finished)\n            {FAILS}'
    done, _ = run(tmp_path / "plain", TOGETHER.format(decorators="", body=fails))
    assert done.returncode == 1
    assert "F/r/train/1 failed (user error): AssertionError" in done.stdout
    done, found = run(tmp_path / "caught", TOGETHER.format(decorators="@catch(var='failed')", body=fails))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ["AssertionError" in str(each) for each in found["join"].task.data.all] == [False, True, True]
