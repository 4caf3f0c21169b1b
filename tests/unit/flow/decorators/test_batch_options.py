"""Options of a step's job on AWS Batch: spellings, units, and what can't be used together."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.base import of, options_of
from k8sflow.flow.decorators.batch import batch
from k8sflow.flow.decorators.batch_options import BatchOptions, mebibytes, merge_batch
from k8sflow.flow.decorators.batch_parsers import log_options

PAGE = (Path(__file__).parents[4] / "docs" / "batch.md").read_text()
ROLE = "arn:aws:iam::123456789012:role/jobs"


def written(**options: Any) -> BatchOptions:
    """The options that a user has written in ``@batch(...)``."""

    @batch(**options)
    def start(self: Any) -> None: ...

    found = options_of(of(start), "batch")
    assert found is not None
    return BatchOptions(**found)


def test_options_of_a_decorator_and_of_the_command_line_are_the_same() -> None:
    one = written(
        cpu=2,
        memory=1024,
        gpu=1,
        host_volumes=["/data", "/more"],
        efs_volumes={"fs-01234567": "/efs"},
        log_driver="awslogs",
        log_options=["awslogs-group:/jobs"],
        aws_batch_tags={"team": "a"},
        use_tmpfs=True,
    )
    other = written(
        cpu="2",
        memory="1024",
        gpu="1",
        host_volumes="/data,/more",
        efs_volumes="fs-01234567=/efs",
        log_driver="awslogs",
        log_options="awslogs-group=/jobs",
        aws_batch_tags="team=a",
        use_tmpfs="true",
    )
    assert one == other
    assert BatchOptions.from_document(one.to_document()) == one


def test_a_list_of_file_systems_is_mounted_below_mnt() -> None:
    """Metaflow's spelling."""
    assert written(efs_volumes=["fs-01234567"]).efs_volumes == {"fs-01234567": "/mnt/fs-01234567"}
    assert written(efs_volumes="fs-01234567").efs_volumes == {"fs-01234567": "/mnt/fs-01234567"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"memroy": 2}, "Did you mean 'memory'? docs/batch.md lists its options."),
        ({"iam_role": "jobs"}, "'jobs' is not the ARN of an IAM role"),
        ({"swappiness": 101, "max_swap": 1}, "101 is not a swappiness"),
        ({"ephemeral_storage": 20}, "20 is not a number of GiB from 21 to 200"),
        ({"deadline_seconds": 59}, "less than the 60"),
        ({"efs_volumes": ["data"]}, "'data' is not the id of an EFS file system"),
        ({"host_volumes": ["data"]}, "'data' is not the absolute path of a folder"),
        ({"log_driver": "awslog"}, "is none of awslogs"),
        ({"log_options": ["awslogs-group"]}, "is not of the form option:value"),
        ({"gpu": 17}, "more than an instance has"),
        ({"aws_batch_tags": {"aws:x": "y"}}, "'aws:x' can't be the key of a tag"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "env=…: AWS_SECRET_ACCESS_KEY would be readable"),
        ({"job_definition": "mine", "image": "x"}, "image belongs to the job definition mine"),
        ({"memory": 500, "max_memory": 400}, "is not more than memory"),
    ],
)
def test_a_wrong_option_is_reported_with_a_correction(values: dict[str, Any], words: str) -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        written(**values)
    assert words in str(caught.value)
    assert "@batch" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"swappiness": 10}, "without max_swap"),
        ({"log_options": {"a": "b"}}, "without log_driver"),
        ({"tmpfs_path": "/x"}, "without use_tmpfs"),
        ({"gpu": 1, "trainium": 1}, "no instance has gpu and trainium"),
        ({"host_volumes": ("/x",), "efs_volumes": {"fs-01234567": "/x"}}, "two volumes are mounted at /x"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BatchOptions(**options).check()


@pytest.mark.parametrize(
    ("amount", "expected"), [("4096M", 4096), ("4Gi", 4096), ("512Mi", 512), ("1G", 954), ("0.5Gi", 512)]
)
def test_memory_is_in_mebibytes(amount: str, expected: int) -> None:
    """A plain number is what AWS Batch and Metaflow take it for."""
    assert mebibytes(amount) == expected


def test_a_part_of_a_mebibyte_is_rounded_up() -> None:
    """Also after the memory was doubled."""
    found = written(memory=4096.5, on_oom="double")
    assert found.memory is not None
    assert mebibytes(found.memory) == 4097
    assert mebibytes(found.more_memory()[0]) == 8193


def test_what_the_user_wrote_is_never_mixed_with_a_default() -> None:
    """But tags and variables are joined."""
    merged = merge_batch(BatchOptions(env={"A": "1"}, cpu="1"), BatchOptions(env={"B": "2"}, cpu="4", queue="q"))
    assert merged == BatchOptions(env={"A": "1", "B": "2"}, cpu="1", queue="q")


def test_the_docs_list_every_option() -> None:
    """Copy the lines of the failure where an option was added or its help has changed."""
    table = ["| option | meaning |", "|---|---|"]
    table += [f"| `{option.name}` | {option.metadata['help']} |" for option in fields(BatchOptions)]
    section = PAGE.partition("## Options")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")] == table


@pytest.mark.parametrize("value", [{"awslogs-group": "/jobs"}, "awslogs-group=/jobs", "awslogs-group:/jobs"])
def test_an_option_of_the_log_driver_is_written_in_any_form(value: object) -> None:
    """The last one is Metaflow's."""
    assert log_options(value) == {"awslogs-group": "/jobs"}
