"""``@batch``: runs a step on AWS Batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from k8sflow.flow.decorators.base import Option, decorator
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.decorators.pod_options import is_more


def _check(options: Mapping[str, Any]) -> None:
    """Checks what no other decorator of the step can correct."""
    memory, most = options["memory"], options["max_memory"]
    if memory is not None and most is not None and not is_more(most, memory):
        raise ValueError(f"max_memory={most!r} is not more than memory={memory!r}")
    BatchOptions(job_definition=options["job_definition"], image=options["image"]).check_definition()


@decorator(
    "runs the step as a job of AWS Batch, whatever the rest of the flow does",
    options=tuple(Option(each.metadata["parse"], each.metadata["help"], each.name) for each in fields(BatchOptions)),
    check=_check,
    page="docs/batch.md",
)
def batch(
    *,
    queue: str | None = None,
    image: str | None = None,
    executable: str | None = None,
    iam_role: str | None = None,
    execution_role: str | None = None,
    job_definition: str | None = None,
    cpu: float | str | None = None,
    memory: float | str | None = None,
    gpu: int | str | None = None,
    inferentia: int | str | None = None,
    trainium: int | str | None = None,
    efa: int | str | None = None,
    shared_memory: float | str | None = None,
    max_swap: int | str | None = None,
    swappiness: int | str | None = None,
    on_oom: str | None = None,
    max_memory: float | str | None = None,
    ephemeral_storage: int | str | None = None,
    use_tmpfs: bool | str | None = None,
    tmpfs_size: float | str | None = None,
    tmpfs_path: str | None = None,
    tmpfs_tempdir: bool | str | None = None,
    host_volumes: str | Sequence[str] | None = None,
    efs_volumes: str | Sequence[str] | Mapping[str, str] | None = None,
    env: str | Mapping[str, str] | None = None,
    privileged: bool | str | None = None,
    log_driver: str | None = None,
    log_options: str | Sequence[str] | Mapping[str, str] | None = None,
    aws_batch_tags: str | Mapping[str, str] | None = None,
    deadline_seconds: int | str | None = None,
) -> None: ...
