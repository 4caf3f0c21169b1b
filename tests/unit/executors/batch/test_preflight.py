"""Bad input is refused before a run on AWS Batch starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k8sflow.config import Settings
from k8sflow.errors import BatchError, ConfigurationError, FlowDefinitionError, K8sflowError
from k8sflow.executors.batch.preflight import check_options, check_queues
from k8sflow.flow.decorators.batch_options import DEFAULT_BATCH_OPTIONS, BatchOptions, merge_batch
from tests.unit.executors.fake_batch import FakeBatch

ROLE = "arn:aws:iam::123456789012:role/jobs"
SETTINGS = Settings(bucket="b", region="eu-west-1")


def options(**more: Any) -> BatchOptions:
    written = BatchOptions(**{"queue": "q", "image": "k8sflow:1", "iam_role": ROLE, **more})
    return merge_batch(written, DEFAULT_BATCH_OPTIONS)


def queue(kind: str = "EC2", vcpus: int = 16, **more: Any) -> FakeBatch:
    server = FakeBatch()
    server.compute = [
        {
            "computeEnvironmentName": "env",
            "state": "ENABLED",
            "status": "VALID",
            "computeResources": {"type": kind, "maxvCpus": vcpus},
            **more,
        }
    ]
    return server


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (options(queue=None), "step train runs on AWS Batch, and no job queue is set"),
        (options(iam_role=None), "no IAM role is set with which its job may use the bucket"),
    ],
)
def test_a_missing_setting_is_named(written: BatchOptions, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        check_options({"train": written})
    assert "K8SFLOW_BATCH_" in caught.value.advice


def test_an_unknown_queue_is_an_error() -> None:
    """With the region, which may be the wrong one."""
    server = FakeBatch()
    server.queue_document = None
    with pytest.raises(BatchError, match="there is no job queue 'q' of AWS Batch in eu-west-1"):
        check_queues(SETTINGS, {"train": options()}, api=server)


@pytest.mark.parametrize(
    ("server", "written", "kind", "words"),
    [
        (queue(state="DISABLED"), options(), ConfigurationError, "no compute environment of the job queue q"),
        (queue(status="INVALID"), options(), ConfigurationError, "no compute environment of the job queue q"),
        (queue(vcpus=4), options(cpu="8"), FlowDefinitionError, "requests 8 vCPUs, and .* have 4 at most"),
        (queue(), options(ephemeral_storage=50), FlowDefinitionError, "ephemeral_storage is an option of Fargate"),
        (queue("FARGATE"), options(gpu=1), FlowDefinitionError, "Fargate can't run a job with gpu"),
        (queue("FARGATE"), options(host_volumes=("/x",)), FlowDefinitionError, "with host_volumes"),
        (queue("FARGATE"), options(tmpfs_size="64M"), FlowDefinitionError, "with use_tmpfs"),
        (queue("FARGATE_SPOT"), options(shared_memory="64M"), FlowDefinitionError, "with shared_memory"),
        (queue("FARGATE"), options(), FlowDefinitionError, "needs an execution role"),
        (queue("FARGATE"), options(execution_role=ROLE, cpu="3"), FlowDefinitionError, "no size with 3 vCPUs"),
        (
            queue("FARGATE"),
            options(execution_role=ROLE, memory="500M"),
            FlowDefinitionError,
            "no size with 1 vCPUs and 500 MiB",
        ),
        (
            queue("FARGATE"),
            options(execution_role=ROLE, on_oom="double"),
            FlowDefinitionError,
            "on_oom would request 16384 MiB, and Fargate has no such size with 1 vCPUs",
        ),
        (
            queue("FARGATE"),
            options(execution_role=ROLE, memory="8192M", on_oom="double"),
            FlowDefinitionError,
            "on_oom would request 16384 MiB",
        ),
        (
            queue("FARGATE"),
            options(execution_role=ROLE, log_driver="gelf", log_options={"a": "b"}),
            FlowDefinitionError,
            "no log driver gelf",
        ),
    ],
)
def test_what_a_queue_cant_run_is_refused(
    server: FakeBatch, written: BatchOptions, kind: type[K8sflowError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        check_queues(SETTINGS, {"train": written}, api=server)
    assert caught.value.advice
    if kind is FlowDefinitionError:
        assert "step train" in str(caught.value)


def test_the_sizes_of_fargate_are_suggested() -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        check_queues(SETTINGS, {"s": options(execution_role=ROLE, memory="500M")}, api=queue("FARGATE"))
    assert "2048 to 8192 in steps of 1024" in caught.value.advice
    with pytest.raises(FlowDefinitionError) as caught:
        check_queues(SETTINGS, {"s": options(execution_role=ROLE, memory="16384M")}, api=queue("FARGATE"))
    assert "or cpu=2" in caught.value.advice


def test_more_memory_up_to_the_most_of_a_size_is_possible() -> None:
    written = options(execution_role=ROLE, on_oom="double")
    with pytest.raises(FlowDefinitionError) as caught:
        check_queues(SETTINGS, {"s": written}, api=queue("FARGATE"))
    assert "Set max_memory=8192" in caught.value.advice
    check_queues(SETTINGS, {"s": replace(written, memory="2048M", max_memory="8192M")}, api=queue("FARGATE"))
    check_queues(SETTINGS, {"s": written}, api=queue())


@pytest.mark.parametrize("kind", ["EC2", "SPOT", "FARGATE", "FARGATE_SPOT"])
def test_an_ordinary_step_fits_everywhere(kind: str) -> None:
    check_queues(SETTINGS, {"train": options(execution_role=ROLE)}, api=queue(kind))


def test_a_disabled_queue_is_refused() -> None:
    server = queue()
    assert server.queue_document is not None
    server.queue_document["state"] = "DISABLED"
    with pytest.raises(ConfigurationError, match="the job queue q is disabled"):
        check_queues(SETTINGS, {"train": options()}, api=server)


@pytest.mark.parametrize(
    ("server", "written", "words"),
    [
        (queue("FARGATE"), options(execution_role=ROLE), "Fargate has no multi-node jobs"),
        (queue("SPOT"), options(), "no multi-node jobs on spot instances"),
        (queue(), options(job_definition="mine"), "an existing job definition doesn't say on how many nodes"),
    ],
)
def test_tasks_that_run_together_need_instances_and_a_definition_of_their_own(
    server: FakeBatch, written: BatchOptions, words: str
) -> None:
    with pytest.raises(FlowDefinitionError, match=words):
        check_queues(SETTINGS, {"train": written}, {"train"}, server)
    check_queues(SETTINGS, {"train": written}, (), server)
