"""A run's driver on AWS Batch: Ctrl-C, its death, another terminal, and input that it refuses."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8sflow.aws.outcome import CANCELLED
from tests.batch.conftest import FLOWS, ROLE, Batch
from tests.batch.proxy import proxied
from tests.kind.terminal import start
from tests.support import HEAD, wait_for, write_flow

BATCH = ("--with", "batch")
WAITING = """
class F(FlowSpec):
    @resources(cpu=1, memory=150)
    @step
    def start(self):
        import os, time
        print("waits for a file", flush=True)
        while not os.path.exists("/tmp/go-on"):
            time.sleep(0.1)
        self.next(self.end)
    @resources(cpu=1, memory=150)
    @step
    def end(self): print("ended")
"""


def let_go_on(batch: Batch, run: str) -> None:
    """Lets the step of ``WAITING`` end."""
    (container,) = batch.containers("F", run)
    batch.docker("exec", container, "python3", "-c", "open('/tmp/go-on', 'w')")


def test_ctrl_c_terminates_the_jobs(batch: Batch) -> None:
    """No container of the run is left."""
    name = f"to-interrupt-{secrets.token_hex(4)}"
    run = batch.start("trouble.py", "--how", "sleep", *BATCH, "--run-id", name)
    run.seen("about to fail by sleep")
    assert len(batch.containers("BatchTrouble", name)) == 1
    run.interrupt()
    run.wait(60)
    assert run.code == 130
    assert "was cancelled" in run.text
    (job,) = batch.jobs("BatchTrouble", name)
    assert (job["status"], job["statusReason"]) == ("FAILED", CANCELLED)
    wait_for(lambda: batch.containers("BatchTrouble", name) == [], 30)


def test_attach_takes_over_the_jobs_of_a_dead_driver(
    batch: Batch, client: Callable[[str], Any], tmp_path: Path
) -> None:
    """A running job isn't submitted again (invariant I5)."""
    flow, run = write_flow(tmp_path, WAITING), f"deserted-{secrets.token_hex(4)}"
    driver = batch.start(flow, *BATCH, "--run-id", run)
    driver.seen("waits for a file")
    driver.process.send_signal(signal.SIGKILL)
    driver.wait(10)
    attached = batch.command(flow, "attach", run)
    attached.seen("waits for a file")
    let_go_on(batch, run)
    attached.wait(90)
    assert attached.code == 0, attached.text
    assert len(batch.jobs("F", run)) == 2
    assert client(attached.run)["start"].task.current_attempt == 0


def test_a_login_that_expires_is_waited_for(batch: Batch, tmp_path: Path) -> None:
    """The job runs on, and so does the run after a new login."""
    name, logged_out = f"logged-out-{secrets.token_hex(4)}", threading.Event()
    with proxied(batch.environment["AWS_ENDPOINT_URL_BATCH"], logged_out=logged_out) as (url, calls):
        run = batch.start(write_flow(tmp_path, WAITING), *BATCH, "--run-id", name, AWS_ENDPOINT_URL_BATCH=url)
        run.seen("waits for a file")
        logged_out.set()
        run.seen("The login to AWS has ended. Jobs keep running; log in again")
        let_go_on(batch, name)
        wait_for(lambda: calls["logged out"] > 3)
        logged_out.clear()
        run.wait(90)
    assert run.code == 0, run.text
    assert len(batch.jobs("F", name)) == 2


def test_a_login_that_is_not_renewed_ends_the_driver_and_not_its_jobs(batch: Batch, tmp_path: Path) -> None:
    """``attach`` continues the run after a new login, and no job is submitted again."""
    name, logged_out = f"locked-out-{secrets.token_hex(4)}", threading.Event()
    impatient = "\nfrom k8sflow.aws.api import Boto3Api\nBoto3Api.__init__.__defaults__ = (None, 1.0)\n"
    flow = write_flow(tmp_path, WAITING, head=HEAD + impatient)
    with proxied(batch.environment["AWS_ENDPOINT_URL_BATCH"], logged_out=logged_out) as (url, _):
        run = batch.start(flow, *BATCH, "--run-id", name, AWS_ENDPOINT_URL_BATCH=url)
        run.seen("waits for a file")
        logged_out.set()
        run.wait(60)
    assert run.code == 1
    assert "the login to AWS has ended. Jobs that run keep running." in run.text
    assert f"attach {name}" in run.text
    attached = batch.command(flow, "attach", name)
    attached.seen("waits for a file")
    let_go_on(batch, name)
    attached.wait(90)
    assert attached.code == 0, attached.text
    assert len(batch.jobs("F", name)) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_the_narrowest_foreach_runs(batch: Batch, client: Callable[[str], Any], tmp_path: Path, count: int) -> None:
    """AWS Batch has no array job with one child."""
    source = f"""
    class F(FlowSpec):
        @resources(cpu=1, memory=150)
        @step
        def start(self):
            self.items = list(range({count}))
            self.next(self.work, foreach="items")
        @resources(cpu=1, memory=150)
        @step
        def work(self):
            self.x = self.input + 1
            self.next(self.join)
        @resources(cpu=1, memory=150)
        @step
        def join(self, inputs):
            self.found = [each.x for each in inputs]
            self.next(self.end)
        @resources(cpu=1, memory=150)
        @step
        def end(self): pass
    """
    done = batch.run(write_flow(tmp_path, source), *BATCH)
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.found == list(range(1, count + 1))
    jobs = batch.jobs("F", done.run.partition("/")[2])
    sizes = [job["arrayProperties"]["size"] for job in jobs if "size" in job.get("arrayProperties", {})]
    assert sizes == ([2] if count == 2 else [])


def test_resume_runs_again_what_failed(batch: Batch, client: Callable[[str], Any], tmp_path: Path) -> None:
    """In a new run, after the flow was corrected; what had succeeded is not run again."""
    source = """
    class F(FlowSpec):
        @resources(cpu=1, memory=150)
        @step
        def start(self):
            self.x = 1
            self.next(self.end)
        @resources(cpu=1, memory=150)
        @step
        def end(self): self.y = self.x / 0
    """
    failed = batch.run(write_flow(tmp_path, source), *BATCH)
    assert "ZeroDivisionError" in failed.text
    flow = write_flow(tmp_path, source.replace("/ 0", "+ 1"))
    name = failed.run.partition("/")[2]
    resumed = batch.command(flow, "resume", *BATCH, "--origin-run-id", name).wait(60)
    assert resumed.code == 0, resumed.text
    assert client(resumed.run)["end"].task.data.y == 2
    assert client(resumed.run)["start"].task.origin_pathspec == f"{failed.run}/start/0"


def test_kill_ends_a_run_and_list_shows_it(batch: Batch) -> None:
    """From another terminal, and as its driver."""
    name = f"to-kill-{secrets.token_hex(4)}"
    run = batch.start("trouble.py", "--how", "sleep", *BATCH, "--run-id", name)
    run.seen("about to fail by sleep")
    listed = batch.command("trouble.py", "batch", "list", "--run-id", name).wait(30)
    assert "start/0" in listed.text
    assert "running" in listed.text
    killed = batch.command("trouble.py", "batch", "kill", "--run-id", name, "--yes").wait(60)
    assert killed.code == 0, killed.text
    assert "its jobs are terminated" in killed.text
    run.wait(30)
    assert "was cancelled" in run.text
    after = batch.command("trouble.py", "batch", "list", "--run-id", name).wait(30)
    assert "No unfinished job was found." in after.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"K8SFLOW_BATCH_QUEUE": ""}, "no job queue is set"),
        ({"K8SFLOW_BATCH_QUEUE": "missing"}, "there is no job queue 'missing' of AWS Batch in eu-west-1"),
        ({"K8SFLOW_BATCH_QUEUE": "closed"}, "the job queue closed is disabled"),
        ({"K8SFLOW_BATCH_QUEUE": "fargate"}, "Fargate needs an execution role"),
        ({"K8SFLOW_BATCH_JOB_ROLE": ""}, "no IAM role is set"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": "/nonexistent"}, "keys"),
        ({"AWS_ENDPOINT_URL_BATCH": "", "K8SFLOW_BATCH_REGION": "eu-wset-1"}, "Did you mean 'eu-west-1'?"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(batch: Batch, variables: dict[str, str], words: str) -> None:
    """The error says how to correct it."""
    environment = {name: value for name, value in {**batch.environment, **variables}.items() if value}
    run = start([str(FLOWS / "trouble.py"), "run", *BATCH], environment).wait(60)
    assert run.code != 0
    assert words in run.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("cpu=17", "requests 17 vCPUs, and the compute environments of the job queue main have 16 at most"),
        (f"queue='fargate', execution_role={ROLE!r}, shared_memory=64", "Fargate can't run a job with shared_memory"),
    ],
)
def test_a_step_that_its_queue_cant_run_is_refused_before_anything_starts(
    batch: Batch, tmp_path: Path, options: str, words: str
) -> None:
    source = f"""
    class F(FlowSpec):
        @batch({options})
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
    """
    before = len(batch.jobs("F"))
    flow = write_flow(tmp_path, source, head="from k8sflow import FlowSpec, batch, step\n")
    run = batch.command(flow, "run").wait(60)
    assert run.code == 1
    assert words in run.text
    assert len(batch.jobs("F")) == before
