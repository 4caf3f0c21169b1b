"""The refusals of Fargate: sizes that it doesn't have, and options that need an instance.

https://docs.aws.amazon.com/batch/latest/userguide/fargate.html
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.batch_options import BatchOptions, mebibytes
from k8sflow.task.result import Failure

# vCPUs, and the MiB that each number of them may have.
_SIZES: dict[Decimal, tuple[int, ...]] = {
    Decimal("0.25"): (512, 1024, 2048),
    Decimal("0.5"): tuple(range(1024, 4096 + 1, 1024)),
    Decimal(1): tuple(range(2048, 8192 + 1, 1024)),
    Decimal(2): tuple(range(4096, 16384 + 1, 1024)),
    Decimal(4): tuple(range(8192, 30720 + 1, 1024)),
    Decimal(8): tuple(range(16384, 61440 + 1, 4096)),
    Decimal(16): tuple(range(32768, 122880 + 1, 8192)),
}
_REFUSED = (
    "gpu",
    "inferentia",
    "trainium",
    "efa",
    "shared_memory",
    "max_swap",
    "swappiness",
    "host_volumes",
    "privileged",
)
_LOG_DRIVERS = ("awslogs", "splunk")


def fargate_mistake(options: BatchOptions) -> Failure | None:
    """Why Fargate would refuse a job, or None."""
    for name in _REFUSED:
        if getattr(options, name):
            return _refused(name)
    if options.has_tmpfs:
        return _refused("use_tmpfs")
    if options.log_driver is not None and options.log_driver not in _LOG_DRIVERS:
        return Failure(f"Fargate has no log driver {options.log_driver}.", "", f"Use one of {', '.join(_LOG_DRIVERS)}.")
    if options.execution_role is None and options.job_definition is None:
        return Failure(
            "Fargate needs an execution role, by which the image is pulled, and none is set.",
            "",
            "Set batch_execution_role (K8SFLOW_BATCH_EXECUTION_ROLE), or @batch(execution_role=…); docs/batch.md has "
            "its policy.",
        )
    return _wrong_size(options)


def growth_mistake(options: BatchOptions) -> Failure | None:
    """Why Fargate would refuse a job after it ran out of memory, or None."""
    assert options.cpu is not None, "every job requests vCPUs"
    assert options.memory is not None, "every job requests memory"
    cores = quantity.parse(options.cpu)
    for amount in options.more_memory():
        if _wrong_size(replace(options, memory=amount)) is not None:
            most = _SIZES[cores][-1]
            is_less = mebibytes(options.memory) < most
            return Failure(
                f"on_oom would request {mebibytes(amount)} MiB, and Fargate has no such size with "
                f"{cores.normalize():f} vCPUs.",
                "",
                f"Set max_memory={most}, or request more vCPUs."
                if is_less
                else "Remove on_oom, or request more vCPUs.",
            )
    return None


def _refused(name: str) -> Failure:
    return Failure(
        f"Fargate can't run a job with {name}.",
        "The step's job queue has a Fargate environment; this option needs an instance of EC2.",
        f"Remove {name}, or name a queue with EC2 instances: @batch(queue=…).",
    )


def _wrong_size(options: BatchOptions) -> Failure | None:
    assert options.cpu is not None, "every job requests vCPUs"
    assert options.memory is not None, "every job requests memory"
    cores, memory = quantity.parse(options.cpu), mebibytes(options.memory)
    if cores not in _SIZES:
        sizes = ", ".join(f"{size:f}" for size in _SIZES)
        return Failure(f"Fargate has no size with {cores.normalize():f} vCPUs.", "", f"Use cpu= one of {sizes}.")
    possible = _SIZES[cores]
    if memory in possible:
        return None
    advice = f"Use memory= {_listed(possible)}"
    fitting = min((size for size, amounts in _SIZES.items() if memory in amounts), default=None)
    if fitting is not None:
        advice += f", or cpu={fitting:f}"
    return Failure(f"Fargate has no size with {cores.normalize():f} vCPUs and {memory} MiB.", "", f"{advice}.")


def _listed(possible: tuple[int, ...]) -> str:
    if len(possible) <= 3:  # noqa: PLR2004  a longer list is a range
        return ", ".join(map(str, possible))
    return f"{possible[0]} to {possible[-1]} in steps of {possible[1] - possible[0]}"
