"""Faults on AWS Batch end as on Kubernetes: with an outcome, a diagnosis, and no retry where none is due."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k8sflow.aws.outcome import REPLACED
from tests.batch.conftest import Batch
from tests.batch.proxy import proxied
from tests.support import write_flow

BATCH = ("--with", "batch")


def test_a_killed_container_is_run_again_without_a_retry(batch: Batch, client: Callable[[str], Any]) -> None:
    """An infrastructure failure: the step has no @retry."""
    name = f"to-be-killed-{secrets.token_hex(4)}"
    run = batch.start("killed.py", *BATCH, "--run-id", name, K8SFLOW_INFRASTRUCTURE_PAUSES_SECONDS="0")
    run.seen("waits")
    (container,) = batch.containers("BatchKilled", name)
    batch.docker("kill", container)
    run.wait(90)
    assert run.code == 0, run.text
    assert "its container was killed externally (exit code 137)" in run.text
    assert client(run.run)["start"].task.current_attempt == 1


def test_a_missing_image_is_named(batch: Batch) -> None:
    run = batch.run("trouble.py", *BATCH, K8SFLOW_BATCH_IMAGE="team/missing:1", K8SFLOW_INFRASTRUCTURE_RETRIES="0")
    assert run.code == 1
    assert "the image team/missing:1 can't be pulled: it does not exist" in run.text


def test_an_image_without_the_runtime_is_named(batch: Batch) -> None:
    """From the output in CloudWatch: nothing could be stored."""
    plain = batch.environment["K8SFLOW_TEST_PLAIN_IMAGE"]
    run = batch.run("trouble.py", *BATCH, K8SFLOW_BATCH_IMAGE=plain)
    assert run.code == 1
    assert "doesn't contain the k8sflow runtime" in run.text


def test_a_bucket_that_jobs_cant_reach_is_reported(batch: Batch) -> None:
    """The result comes from CloudWatch, where the agent has written it, and so does what ``logs`` shows."""
    run = batch.run(
        "trouble.py", *BATCH, K8SFLOW_IN_CLUSTER_ENDPOINT="http://127.0.0.1:9", K8SFLOW_STORAGE_PATIENCE_SECONDS="1"
    )
    assert run.code == 1
    assert "the bucket can't be reached from the job" in run.text
    logs = batch.command("trouble.py", "logs", f"{run.run.partition('/')[2]}/start").wait(30)
    assert "127.0.0.1:9" in logs.text


def test_output_that_only_cloudwatch_has_is_shown_by_logs(batch: Batch) -> None:
    """Python's own words, since the agent never started."""
    plain = batch.environment["K8SFLOW_TEST_PLAIN_IMAGE"]
    run = batch.run("trouble.py", *BATCH, K8SFLOW_BATCH_IMAGE=plain, K8SFLOW_INFRASTRUCTURE_RETRIES="0")
    assert run.code == 1
    logs = batch.command("trouble.py", "logs", f"{run.run.partition('/')[2]}/start").wait(30)
    assert "No module named" in logs.text


def test_a_throttled_api_is_asked_again(batch: Batch) -> None:
    """With pauses; each job is submitted once."""
    with proxied(batch.environment["AWS_ENDPOINT_URL_BATCH"], throttles=True) as (url, calls):
        run = batch.run("trouble.py", *BATCH, AWS_ENDPOINT_URL_BATCH=url)
    assert run.code == 1
    assert "ValueError: no rows in week 3" in run.text
    assert calls["refused"] > 10
    assert calls["POST /v1/submitjob"] == 1


def test_a_lost_answer_to_a_submit_makes_no_second_job(batch: Batch) -> None:
    """The job is found by its name."""
    before = len(batch.jobs("BatchTrouble"))
    with proxied(batch.environment["AWS_ENDPOINT_URL_BATCH"], loses_submit=True) as (url, _):
        run = batch.run("trouble.py", *BATCH, AWS_ENDPOINT_URL_BATCH=url)
    assert "ValueError: no rows in week 3" in run.text
    assert len(batch.jobs("BatchTrouble")) == before + 1


def test_a_failure_is_explained(batch: Batch, client: Callable[[str], Any]) -> None:
    """With the user's traceback, and what the step had printed."""
    done = batch.run("trouble.py", *BATCH)
    assert done.code == 1
    assert "about to fail by error" in done.text
    assert "ValueError: no rows in week 3" in done.text
    assert client(done.run)["start"].task.exception.type == "builtins.ValueError"


def test_retry_catch_timeout_and_environment_hold(batch: Batch) -> None:
    """As on Kubernetes."""
    done = batch.run("trouble.py", "--how", "none", *BATCH)
    assert done.code == 0, done.text
    assert "hello $HOME and $(HOME) timed_out" in done.text


def test_out_of_memory_is_reported_as_such(batch: Batch) -> None:
    """By the agent, from the counters of its cgroup, or by AWS where the agent was killed too."""
    done = batch.run("trouble.py", "--how", "memory", *BATCH)
    assert done.code == 1
    assert "memory" in done.text.partition("failed")[2]
    assert "@resources(memory=" in done.text


def test_a_lost_node_ends_the_others_and_they_run_again_as_one(
    batch: Batch, client: Callable[[str], Any], tmp_path: Path
) -> None:
    """AWS Batch itself keeps the main node running, which would wait for the result of the lost one."""
    source = """
    class F(FlowSpec):
        @resources(cpu=1, memory=150)
        @step
        def start(self): self.next(self.work, num_parallel=2)
        @parallel
        @resources(cpu=1, memory=150)
        @step
        def work(self):
            self.node = current.parallel.node_index
            if current.retry_count == 0:
                print("node", self.node, "waits", flush=True)
                time.sleep(600 * self.node)
            self.next(self.join)
        @resources(cpu=1, memory=150)
        @step
        def join(self, inputs):
            self.nodes = [each.node for each in inputs]
            self.next(self.end)
        @resources(cpu=1, memory=150)
        @step
        def end(self): pass
    """
    flow = write_flow(
        tmp_path, source, head="import time\nfrom k8sflow import FlowSpec, current, parallel, resources, step\n"
    )
    name = f"lost-node-{secrets.token_hex(4)}"
    run = batch.start(flow, *BATCH, "--run-id", name, K8SFLOW_INFRASTRUCTURE_PAUSES_SECONDS="0")
    run.seen("node 1 waits")
    (other,) = [each for each in batch.containers("F", name) if each.endswith("-1")]
    batch.docker("kill", other)
    run.wait(120)
    assert run.code == 0, run.text
    assert "its container was killed externally (exit code 137)" in run.text
    found = client(run.run)
    assert found["end"].task.data.nodes == [0, 1]
    assert {task.current_attempt for task in found["work"]} == {1}
    first, *_ = [job for job in batch.jobs("F", name) if "nodeProperties" in job and job["status"] == "FAILED"]
    assert first["statusReason"] == REPLACED
