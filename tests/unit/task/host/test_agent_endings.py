"""The end of a task in a pod: its time limit, SIGTERM with and without grace, and the notice of a spot node."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.task.host.framing import ResultLine, decode
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TaskResult
from tests.support import wait_for
from tests.unit.task.host.agent_runs import SLOW, ended, prepare, run_agent, start_agent


@pytest.mark.slow
def test_a_task_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    """Also one that ignores SIGTERM; the agent tells timed_out, and writes it."""
    began = time.monotonic()
    done, run_store = run_agent(tmp_path, SLOW, "--timeout=1")
    assert time.monotonic() - began > 1
    assert done.returncode == 1, done.stderr
    line = decode(done.stdout.splitlines()[-1])
    assert isinstance(line, ResultLine)
    result = TaskResult.from_json(line.text)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.failure is not None
    assert "timeout of 1 s" in result.failure.summary
    outcome = run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "timed_out"


@pytest.mark.slow
def test_a_task_whose_time_is_over_can_clean_up(tmp_path: Path) -> None:
    """TimeoutException is raised in its step; what it had set is kept where the step is under @catch."""
    source = """
        from k8sflow.exception import TimeoutException
        class F(FlowSpec):
            @step
            def start(self):
                import time
                try:
                    time.sleep(1000)
                except TimeoutException as error:
                    print("except", error, flush=True)
                    raise
                finally:
                    print("finally", flush=True)
                self.next(self.end)
            @step
            def end(self): pass
    """
    policy = StepPolicy(timeout_seconds=3, grace_seconds=60)
    done, run_store = run_agent(tmp_path, source, "--timeout=3", "--grace=60", policies={"start": policy})
    assert done.returncode == 1, done.stderr
    outcome = run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "timed_out"
    message = "the task took longer than its timeout of 3 s, and was ended"
    assert outcome.summary == message
    assert run_store.read_log("start", "0", 0, "stdout").decode() == f"except {message}\nfinally\n"


def test_a_failure_after_sigterm_is_not_blamed_on_the_code(tmp_path: Path) -> None:
    """The signal ends the task's own children too, so that its code raises: the driver asks who sent it."""
    runner, command = prepare(
        tmp_path,
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        "open('ready', 'w').close()\n"
        "if child.wait(): raise RuntimeError('my child was killed')",
    )
    process = start_agent(tmp_path, command)
    wait_for((tmp_path / "work/code/ready").exists)
    process.send_signal(signal.SIGTERM)
    exit_code, result, _ = ended(tmp_path, process)
    assert exit_code == 143
    assert result.outcome is Outcome.CANCELLED
    assert "my child was killed" in str(result.failure)
    assert runner.run_store.read_outcome("start", "0", 0) is None, "the driver records that the pod was deleted"


FINISHES = """
from k8sflow import current
print('ready', current.preempted, flush=True)
open('ready', 'w').close()
wait_for(lambda: os.path.exists(current.spot_termination_notice))
self.x = current.preempted
"""


def _graceful(folder: Path, body: str, grace_seconds: int) -> tuple[TaskRunner, subprocess.Popen[bytes]]:
    """A task that was sent SIGTERM, with so much grace, as soon as it was ready."""
    runner, command = prepare(folder, body)
    process = start_agent(folder, [*command, f"--termination-grace={grace_seconds}"])
    wait_for((folder / "work/code/ready").exists)
    process.send_signal(signal.SIGTERM)
    return runner, process


def test_a_step_may_finish_after_sigterm(tmp_path: Path) -> None:
    """Within its grace its result counts; current.preempted tells it, and the log tells the user."""
    runner, process = _graceful(tmp_path, FINISHES, 3600)
    code, result, output = ended(tmp_path, process)
    assert (code, result.outcome) == (0, Outcome.SUCCEEDED)
    assert output["stdout"] == b"ready False\n"
    assert b"the step has 3597 s to finish" in output["stderr"]
    assert runner.run_store.read_log("start", "0", 0, "stderr") == output["stderr"]
    commit = runner.run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(runner.store, "F").load(commit.artifacts["x"], "x") is True


def test_a_step_that_uses_up_its_grace_is_ended(tmp_path: Path) -> None:
    """Before the kubelet does so: its output is stored, and it is not the code's failure."""
    body = "print('kept', flush=True)\nopen('ready', 'w').close()\nsubprocess.run(['sleep', '300'])"
    runner, process = _graceful(tmp_path, body, 4)
    code, result, _ = ended(tmp_path, process)
    assert (code, result.outcome) == (143, Outcome.CANCELLED)
    assert runner.run_store.read_log("start", "0", 0, "stdout") == b"kept\n"


def test_a_handler_of_the_step_sees_sigterm(tmp_path: Path) -> None:
    """As libraries expect it that save a checkpoint there; forks of the task still end by SIGTERM."""
    body = """
import multiprocessing
with multiprocessing.get_context('fork').Pool(1) as pool:
    pool.apply(os.getpid)
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
open('ready', 'w').close()
wait_for(lambda: seen)
print(seen)
"""
    _, process = _graceful(tmp_path, body, 3600)
    code, result, output = ended(tmp_path, process)
    assert (code, result.outcome) == (0, Outcome.SUCCEEDED)
    assert output["stdout"] == b"[15]\n"


class _Noticed(BaseHTTPRequestHandler):
    """Google's metadata server, on an instance that is preempted."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"TRUE")

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


def test_a_failure_after_a_spot_notice_costs_no_retry(tmp_path: Path) -> None:
    """A step that gives up because its node is taken away has not failed by itself."""
    body = FINISHES + "raise RuntimeError('saved')"
    with ThreadingHTTPServer(("127.0.0.1", 0), _Noticed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        runner, command = prepare(tmp_path, body)
        process = start_agent(tmp_path, [*command, "--spot=gcp"], GCE_METADATA_HOST=f"127.0.0.1:{server.server_port}")
        code, result, output = ended(tmp_path, process)
        server.shutdown()
        thread.join()
    assert (code, result.outcome) == (1, Outcome.PREEMPTED)
    assert result.failure is not None
    assert "RuntimeError: saved" in result.failure.detail
    assert b"the node is about to be taken away (preempted)." in output["stderr"]
    record = runner.run_store.read_outcome("start", "0", 0)
    assert record is not None
    assert record.outcome == "preempted"
