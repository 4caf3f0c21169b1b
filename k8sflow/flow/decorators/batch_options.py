"""The options of ``@batch``: what a step requests of its job on AWS Batch, each declared once, here.

The decorator, ``--with batch:…``, the job definition and the docs all follow from the fields of ``BatchOptions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from k8sflow.flow.decorators import batch_parsers as parse
from k8sflow.flow.decorators import pod_parsers, quantity
from k8sflow.flow.decorators.parsers import count, flag, text
from k8sflow.flow.decorators.pod_options import DEFAULT_TMPFS_PATH, PodOptions
from k8sflow.flow.decorators.step_requests import StepRequests, option

_MIB = 2**20
_MOST_DEVICES = 16
# What an existing job definition has already; a job can override the rest.
_OF_DEFINITION = (
    "image",
    "iam_role",
    "execution_role",
    "shared_memory",
    "max_swap",
    "swappiness",
    "use_tmpfs",
    "host_volumes",
    "efs_volumes",
    "inferentia",
    "trainium",
    "efa",
    "ephemeral_storage",
    "log_driver",
    "log_options",
    "privileged",
)


@dataclass(frozen=True)
class BatchOptions(StepRequests):
    """The requests of a step for its job; None for those that are not set.

    Amounts of memory are quantities, as in ``PodOptions``.
    """

    joined = frozenset({"aws_batch_tags", "env"})

    queue: str | None = option(text, "job queue, by name or ARN (default: the setting batch_queue)")
    image: str | None = option(
        pod_parsers.image, "image of the job, built on the k8sflow image (default: the setting batch_image)"
    )
    executable: str | None = option(text, "Python of the image that runs the step (default python3)")
    iam_role: str | None = option(
        parse.role, "ARN of the job's role, which may use the bucket (default: the setting batch_job_role)"
    )
    execution_role: str | None = option(
        parse.role, "ARN of the role by which ECS pulls the image; Fargate needs it (default: batch_execution_role)"
    )
    job_definition: str | None = option(
        text, "existing job definition, name, name:revision or ARN, used in place of a registered one"
    )

    cpu: str | None = option(quantity.cpu, "vCPUs; whole ones on EC2 (default 1)")
    memory: str | None = option(quantity.size, 'memory: MiB or a quantity ("4Gi") (default 4096)')
    gpu: int | None = option(parse.devices(_MOST_DEVICES), "number of GPUs")
    inferentia: int | None = option(parse.devices(_MOST_DEVICES), "number of Inferentia devices")
    trainium: int | None = option(parse.devices(_MOST_DEVICES), "number of Trainium devices")
    efa: int | None = option(parse.devices(32), "number of EFA network devices")
    shared_memory: str | None = option(quantity.share, "size of /dev/shm: MiB or a quantity")
    max_swap: int | None = option(count, "MiB of swap that the container may use; 0 for none")
    swappiness: int | None = option(parse.swappiness, "how readily the kernel swaps, 0 to 100; needs max_swap")
    on_oom: str | None = option(
        pod_parsers.one_of("double"), '"double": a task that ran out of memory is run again with twice as much'
    )
    max_memory: str | None = option(quantity.size, "most memory that on_oom may request: MiB or a quantity")
    ephemeral_storage: int | None = option(parse.storage, "GiB of local disk of a Fargate job, 21 to 200")

    use_tmpfs: bool | None = option(flag, "whether the job has a folder in memory (default: if tmpfs_size is set)")
    tmpfs_size: str | None = option(quantity.share, "size of the folder in memory (default: half of the memory)")
    tmpfs_path: str | None = option(pod_parsers.folder, f"path of the folder in memory (default {DEFAULT_TMPFS_PATH})")
    tmpfs_tempdir: bool | None = option(flag, "whether TMPDIR is the folder in memory (default: yes)")
    host_volumes: tuple[str, ...] | None = option(parse.folders, "folders of the instance, mounted under their paths")
    efs_volumes: Mapping[str, str] | None = option(
        parse.file_systems, "EFS file systems and their folders, fs-…=/folder; those of a list are at /mnt/ID"
    )

    env: Mapping[str, str] | None = option(pod_parsers.variables, "more environment variables of the container")
    privileged: bool | None = option(flag, "whether the container has the rights of the instance's root")
    log_driver: str | None = option(
        pod_parsers.one_of(*parse.LOG_DRIVERS), "log driver of the container (default awslogs, which is CloudWatch)"
    )
    log_options: Mapping[str, str] | None = option(parse.log_options, "options of the log driver, option=value")
    aws_batch_tags: Mapping[str, str] | None = option(parse.tags, "more tags of the job, key=value")
    deadline_seconds: int | None = option(parse.deadline, "how long the job may run, at least 60 (default 5 days)")

    @property
    def has_tmpfs(self) -> bool:
        """True if the job has a folder in memory."""
        return self.tmpfs_size is not None if self.use_tmpfs is None else self.use_tmpfs

    def check(self) -> None:
        """Returns if the options can be used together.

        Raises:
            ValueError: They can't.
        """
        if self.swappiness is not None and self.max_swap is None:
            raise ValueError("swappiness has no effect without max_swap")
        if self.log_options is not None and self.log_driver is None:
            raise ValueError("log_options has no effect without log_driver, such as awslogs")
        if not self.has_tmpfs:
            for name in ("tmpfs_size", "tmpfs_path", "tmpfs_tempdir"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} has no effect without use_tmpfs=True")
        devices = [name for name in ("gpu", "inferentia", "trainium") if getattr(self, name)]
        if len(devices) > 1:
            raise ValueError(f"no instance has {devices[0]} and {devices[1]}; request one of them")
        mounted = [*(self.host_volumes or ()), *(self.efs_volumes or {}).values()]
        mounted += [self.tmpfs_path or DEFAULT_TMPFS_PATH] if self.has_tmpfs else []
        if twice := [path for path in mounted if mounted.count(path) > 1]:
            raise ValueError(f"two volumes are mounted at {twice[0]}")

    def check_definition(self) -> None:
        """Returns unless options can have no effect, because an existing job definition is named.

        Raises:
            ValueError: Some can't.
        """
        if self.job_definition is not None:
            for name in _OF_DEFINITION:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to the job definition {self.job_definition}: set it there")

    def more_memory(self) -> tuple[str, ...]:
        """The memory of each further execution of a task that ran out of memory, by ``on_oom`` and ``max_memory``.

        Raises:
            FlowDefinitionError: ``max_memory`` can have no effect.
        """
        return PodOptions(memory=self.memory, on_oom=self.on_oom, max_memory=self.max_memory).more_memory()


DEFAULT_BATCH_OPTIONS = BatchOptions(cpu="1", memory="4096M")


def merge_batch(*options: BatchOptions) -> BatchOptions:
    """The options that hold, strongest first: ``@batch``, ``@resources``, ``--with``, settings, default."""
    return BatchOptions.merged(options)


def mebibytes(amount: str) -> int:
    """An amount of memory in MiB, the unit of AWS Batch, rounded up; a plain number of ``@resources`` is one of MiB.

    As a quantity, that is written with M or, unless it is a whole one, with k.
    """
    unit = Decimal(1000) ** 2 if amount.endswith(("M", "k")) else _MIB
    return int((quantity.parse(amount) / unit).to_integral_value(ROUND_CEILING))
