"""Job definitions and sizes: functions from options to the documents of AWS Batch."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow.aws.definition import Definition, resources
from k8sflow.flow.decorators.batch_options import DEFAULT_BATCH_OPTIONS, BatchOptions, merge_batch

ROLE = "arn:aws:iam::123456789012:role/jobs"


def options(**more: Any) -> BatchOptions:
    return merge_batch(BatchOptions(image="k8sflow:1", iam_role=ROLE, **more), DEFAULT_BATCH_OPTIONS)


def container(*, is_fargate: bool = False, environment: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = Definition(options(**more), environment or {}, is_fargate).document()["containerProperties"]
    return found


def test_a_plain_job_says_no_more_than_it_needs() -> None:
    """Nothing is set that AWS Batch has a default for."""
    found = container()
    assert set(found) == {"image", "jobRoleArn", "environment", "resourceRequirements"}
    assert found["resourceRequirements"] == [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "4096"}]


def test_vcpus_are_whole_on_ec2_and_fractions_on_fargate() -> None:
    assert resources(options(cpu="1500m"))[0] == {"type": "VCPU", "value": "2"}
    assert resources(options(cpu="500m"), is_fargate=True)[0] == {"type": "VCPU", "value": "0.5"}


def test_a_task_knows_its_cores_its_memory_and_its_gpus() -> None:
    """As in a pod; a PYTHONPATH of the user's doesn't replace that of the image."""
    env = {"A": "$HOME", "PYTHONPATH": "/mine"}
    found = {
        each["name"]: each["value"] for each in container(cpu="2500m", memory="1Gi", gpu=2, env=env)["environment"]
    }
    assert found == {
        "A": "$HOME",
        "HOME": "/tmp",
        "K8SFLOW_CPUS": "3",
        "K8SFLOW_GPUS": "2",
        "K8SFLOW_MEMORY_BYTES": str(2**30),
        "K8SFLOW_PYTHONPATH": "/mine",
    }


def test_linux_parameters_and_volumes() -> None:
    found = container(
        shared_memory="64M",
        max_swap=100,
        swappiness=10,
        tmpfs_size="32M",
        inferentia=1,
        efa=1,
        host_volumes=("/data",),
        efs_volumes={"fs-01234567": "/efs"},
        log_driver="awslogs",
        log_options={"awslogs-group": "/jobs"},
        privileged=True,
    )
    linux = found["linuxParameters"]
    assert (linux["sharedMemorySize"], linux["maxSwap"], linux["swappiness"]) == (64, 100, 10)
    assert linux["tmpfs"] == [{"containerPath": "/k8sflow_temp", "size": 32, "mountOptions": ["mode=1777"]}]
    assert [device["hostPath"] for device in linux["devices"]] == ["/dev/neuron0", "/dev/infiniband/uverbs0"]
    assert [mount["containerPath"] for mount in found["mountPoints"]] == ["/data", "/efs"]
    assert found["volumes"][0] == {"name": "volume-0", "host": {"sourcePath": "/data"}}
    assert found["volumes"][1]["efsVolumeConfiguration"]["fileSystemId"] == "fs-01234567"
    assert found["logConfiguration"] == {"logDriver": "awslogs", "options": {"awslogs-group": "/jobs"}}
    assert found["privileged"] is True


def test_half_of_the_memory_is_the_size_of_a_tmpfs_without_one() -> None:
    assert container(memory="1000M", use_tmpfs=True)["linuxParameters"]["tmpfs"][0]["size"] == 500
    variables = {each["name"]: each["value"] for each in container(use_tmpfs=True)["environment"]}
    assert variables["TMPDIR"] == variables["K8SFLOW_TEMPDIR"] == "/k8sflow_temp"
    variables = {each["name"]: each["value"] for each in container(use_tmpfs=True, tmpfs_tempdir=False)["environment"]}
    assert "TMPDIR" not in variables


def test_fargate_pulls_public_images_and_has_disk() -> None:
    found = container(is_fargate=True, ephemeral_storage=50)
    assert found["networkConfiguration"] == {"assignPublicIp": "ENABLED"}
    assert found["ephemeralStorage"] == {"sizeInGiB": 50}


def test_the_name_follows_from_the_content() -> None:
    """Whatever the order of the variables."""
    one = Definition(options(), {"A": "1", "B": "2"})
    assert one.name == Definition(options(), {"B": "2", "A": "1"}).name
    others = [Definition(options(), {"A": "1"}), Definition(options(cpu="2"), {"A": "1", "B": "2"})]
    others.append(Definition(options(), {"A": "1", "B": "2"}, is_fargate=True))
    assert len({each.name for each in (one, *others)}) == 4


@pytest.mark.parametrize("nodes", [2, 5])
def test_a_multi_node_job_has_one_range_of_nodes(nodes: int) -> None:
    found = Definition(options(), nodes=nodes, command=["python3", "Ref::tasks"]).document()
    properties = found["nodeProperties"]
    assert (found["type"], properties["numNodes"], properties["mainNode"]) == ("multinode", nodes, 0)
    (group,) = properties["nodeRangeProperties"]
    assert (group["targetNodes"], group["container"]["command"]) == (f"0:{nodes - 1}", ["python3", "Ref::tasks"])
