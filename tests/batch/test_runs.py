"""Runs with ``--with batch`` on moto's AWS Batch, in containers: behaviour and leftovers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.batch.conftest import Batch
from tests.kind.terminal import Terminal
from tests.support import wait_for, write_flow

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCH = ("--with", "batch")


@pytest.fixture(scope="module")
def shapes(batch: Batch) -> Terminal:
    """A run of the flow with every shape."""
    done = batch.run("shapes.py", *BATCH)
    assert done.code == 0, done.text
    return done


def test_the_sum_of_a_big_matrix(batch: Batch, client: Callable[[str], Any]) -> None:
    """The example of the manual."""
    done = batch.run(EXAMPLES / "bigsum.py", "--n", "1000", *BATCH)
    assert done.code == 0, done.text
    assert "The sum is" in done.text
    assert abs(client(done.run)["start"].task.data.total - 500_000) < 5_000
    assert client(done.run)["start"].task.runtime_name == "batch"


def test_a_foreach_of_twenty_is_one_array_job(batch: Batch, shapes: Terminal, client: Callable[[str], Any]) -> None:
    """Its children take their branches by their index, and the join has them in the order of the items."""
    data = client(shapes.run)["end"].task.data
    assert data.squares == [n**2 for n in range(20)]
    assert data.indices == [str(n) for n in range(20)]
    arrays = [job for job in batch.jobs("BatchShapes") if "size" in job.get("arrayProperties", {})]
    assert [job["arrayProperties"]["size"] for job in arrays] == [20]


def test_the_output_comes_from_the_store(shapes: Terminal) -> None:
    """Each step's is shown."""
    assert "hello from" in shapes.text
    assert "sum of squares 2470" in shapes.text


def test_a_job_has_the_cores_and_the_folders_that_its_step_requests(
    batch: Batch, shapes: Terminal, client: Callable[[str], Any]
) -> None:
    """In the API, and as the step sees them."""
    data = client(shapes.run)["start"].task.data
    assert (data.cores, data.processes, data.tempdir) == ("2", 2, "/k8sflow_temp")
    definitions = batch.client.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    containers = [each["containerProperties"] for each in definitions if "containerProperties" in each]
    found = next(each for each in containers if each.get("linuxParameters", {}).get("sharedMemorySize"))
    assert found["linuxParameters"]["sharedMemorySize"] == 128
    assert {each["type"]: each["value"] for each in found["resourceRequirements"]} == {"VCPU": "2", "MEMORY": "300"}


def test_a_job_definition_is_registered_once(batch: Batch, shapes: Terminal) -> None:
    """Further runs use those that exist, found by the hash of their content."""
    assert batch.run(EXAMPLES / "bigsum.py", "--n", "1000", *BATCH).code == 0
    before = batch.client.describe_job_definitions()["jobDefinitions"]
    done = batch.run(EXAMPLES / "bigsum.py", "--n", "1000", *BATCH)
    assert done.code == 0, done.text
    after = batch.client.describe_job_definitions()["jobDefinitions"]
    assert {each["jobDefinitionArn"] for each in after} == {each["jobDefinitionArn"] for each in before}
    assert {each["revision"] for each in after} == {1}


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


def test_ctrl_c_terminates_the_jobs(batch: Batch) -> None:
    """No container of the run is left."""
    run = batch.start("trouble.py", "--how", "sleep", *BATCH)
    run.seen("about to fail by sleep")
    run.interrupt()
    run.wait(60)
    assert run.code == 130
    assert "was cancelled" in run.text
    job = next(
        job for job in batch.jobs("BatchTrouble") if job["jobName"].endswith("-0") and job["status"] != "SUCCEEDED"
    )
    wait_for(lambda: batch.containers(job["jobId"]) == [], 30)


def test_attach_takes_over_the_jobs_of_a_dead_driver(
    batch: Batch, client: Callable[[str], Any], tmp_path: Path
) -> None:
    """A running job isn't submitted again (invariant I5)."""
    source = """
    import time
    class F(FlowSpec):
        @resources(cpu=1, memory=150)
        @step
        def start(self):
            print("started", flush=True)
            time.sleep(8)
            self.next(self.end)
        @resources(cpu=1, memory=150)
        @step
        def end(self): print("ended")
    """
    flow = write_flow(tmp_path, source)
    driver = batch.start(flow, *BATCH, "--run-id", "deserted")
    driver.seen("started")
    driver.process.send_signal(signal.SIGKILL)
    driver.wait(10)
    attached = batch.command(flow, "attach", "deserted").wait(90)
    assert attached.code == 0, attached.text
    assert len(batch.jobs("F")) == 2
    assert client(attached.run)["start"].task.current_attempt == 0
