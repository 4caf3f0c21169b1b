"""Runs with ``--with batch`` on moto's AWS Batch, in containers: behaviour and leftovers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.batch.conftest import Batch
from tests.kind.terminal import Terminal

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCH = ("--with", "batch")


@pytest.fixture(scope="module")
def shapes(batch: Batch) -> Terminal:
    """A run of the flow with every shape."""
    done = batch.run("shapes.py", *BATCH)
    assert done.code == 0, done.text
    return done


@pytest.fixture(scope="module")
def bigsum(batch: Batch) -> Terminal:
    """A run of the example of the manual."""
    done = batch.run(EXAMPLES / "bigsum.py", "--n", "1000", *BATCH)
    assert done.code == 0, done.text
    return done


def test_the_sum_of_a_big_matrix(bigsum: Terminal, client: Callable[[str], Any]) -> None:
    """The example of the manual."""
    assert "The sum is" in bigsum.text
    assert abs(client(bigsum.run)["start"].task.data.total - 500_000) < 5_000
    assert client(bigsum.run)["start"].task.runtime_name == "batch"


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ("branches.py", r"mean 999,500\.0, median 500\.0 of 1001 numbers"),
        ("foreach.py", r"best of 5: C=[\d.]+ with accuracy 0\.99"),
    ],
)
def test_the_examples_run_as_jobs(batch: Batch, example: str, said: str) -> None:
    """The same files as on Kubernetes."""
    done = batch.run(EXAMPLES / example, *BATCH)
    assert done.code == 0, done.text
    done.seen(rf"\[end/0\] {said}")


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


def test_a_job_definition_is_registered_once(batch: Batch, bigsum: Terminal) -> None:
    """Another run uses those that exist, found by the hash of their content."""
    before = batch.client.describe_job_definitions()["jobDefinitions"]
    assert batch.run(EXAMPLES / "bigsum.py", "--n", "1000", *BATCH).code == 0
    after = batch.client.describe_job_definitions()["jobDefinitions"]
    assert {each["jobDefinitionArn"] for each in after} == {each["jobDefinitionArn"] for each in before}
    assert {each["revision"] for each in after} == {1}


def test_nodes_that_run_together_find_each_other(batch: Batch, client: Callable[[str], Any]) -> None:
    """As one multi-node job."""
    run = batch.run("nodes.py", *BATCH)
    assert run.code == 0, run.text
    assert client(run.run)["end"].task.data.words == ["hello from node 1", "sent"]


def test_one_flow_uses_this_machine_kubernetes_and_aws_batch(batch: Batch, client: Callable[[str], Any]) -> None:
    """Its artifact of 200 MB goes through all three."""
    run = batch.run("everywhere.py")
    assert run.code == 0, run.text
    data = client(run.run)["end"].task.data
    assert data.where == ["here", "batch", "kubernetes"]
    assert data.total == sum(range(1, 25_000_001))
