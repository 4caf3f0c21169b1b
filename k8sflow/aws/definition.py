"""The job definition of a step's options, and the overrides of its jobs: functions from values to dictionaries.

https://docs.aws.amazon.com/batch/latest/APIReference/API_RegisterJobDefinition.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.aws.document import Document
from k8sflow.aws.names import definition_name
from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.batch_options import BatchOptions, mebibytes
from k8sflow.flow.decorators.pod_options import DEFAULT_TMPFS_PATH
from k8sflow.task.host.pod_environment import USERS_PYTHONPATH

DEFAULT_DEADLINE_SECONDS = 5 * 24 * 3600
# The parameter of a multi-node job that has its tasks: such a job can't override a command as a whole.
TASKS_PARAMETER = "tasks"
MEMORY_VARIABLE = "K8SFLOW_MEMORY_BYTES"


@dataclass(frozen=True)
class Definition:
    """The content of a job definition.

    Args:
        options: The requests of the step; ``image``, ``cpu`` and ``memory`` are set.
        environment: Variables of every job; those of the options and k8sflow's own are added.
        is_fargate: Whether the jobs run on Fargate.
        nodes: How many nodes a multi-node job has; 1 for other jobs.
        command: The command of a multi-node job; empty for others, whose jobs have their own.
    """

    options: BatchOptions
    environment: Mapping[str, str] = field(default_factory=dict)
    is_fargate: bool = False
    nodes: int = 1
    command: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name, which follows from the content."""
        return definition_name(json.dumps(self.document(), sort_keys=True))

    def document(self) -> Document:
        """The content for ``RegisterJobDefinition``, without the name."""
        common: Document = {"platformCapabilities": ["FARGATE" if self.is_fargate else "EC2"], "propagateTags": True}
        if self.nodes == 1:
            return {"type": "container", "containerProperties": self._container(), **common}
        node = {"targetNodes": f"0:{self.nodes - 1}", "container": {**self._container(), "command": [*self.command]}}
        nodes = {"mainNode": 0, "numNodes": self.nodes, "nodeRangeProperties": [node]}
        return {"type": "multinode", "nodeProperties": nodes, **common}

    def _container(self) -> Document:
        options = self.options
        volumes, mounts = _volumes(options)
        found: Document = {
            "image": options.image,
            "jobRoleArn": options.iam_role,
            "executionRoleArn": options.execution_role,
            "environment": variables(options, self.environment),
            "resourceRequirements": resources(options, is_fargate=self.is_fargate),
            "volumes": volumes,
            "mountPoints": mounts,
            "linuxParameters": _linux(options),
            "privileged": options.privileged,
        }
        if options.log_driver is not None:
            found["logConfiguration"] = {"logDriver": options.log_driver, "options": dict(options.log_options or {})}
        if self.is_fargate:
            # Images of public registries are pulled through the task's own address.
            found["networkConfiguration"] = {"assignPublicIp": "ENABLED"}
            found["fargatePlatformConfiguration"] = {"platformVersion": "LATEST"}
            if options.ephemeral_storage is not None:
                found["ephemeralStorage"] = {"sizeInGiB": options.ephemeral_storage}
        return {name: value for name, value in found.items() if value}


def resources(options: BatchOptions, *, is_fargate: bool = False) -> list[Document]:
    """The requests of a container: vCPUs, whole ones on EC2, MiB of memory, and GPUs."""
    assert options.cpu is not None, "every job requests vCPUs"
    assert options.memory is not None, "every job requests memory"
    cores = quantity.parse(options.cpu)
    wanted = {
        "VCPU": f"{cores.normalize():f}" if is_fargate else str(math.ceil(cores)),
        "MEMORY": str(mebibytes(options.memory)),
        "GPU": str(options.gpu) if options.gpu else "",
    }
    return [{"type": kind, "value": value} for kind, value in wanted.items() if value]


def variables(options: BatchOptions, environment: Mapping[str, str]) -> list[Document]:
    """The environment variables of a container, in the order of their names."""
    assert options.cpu is not None, "every job requests vCPUs"
    assert options.memory is not None, "every job requests memory"
    plain = {"HOME": "/tmp", **environment, **_temporary(options), **(options.env or {})}  # noqa: S108
    if (path := plain.pop("PYTHONPATH", None)) is not None:
        plain[USERS_PYTHONPATH] = path
    plain |= {
        "K8SFLOW_CPUS": str(math.ceil(quantity.parse(options.cpu))),
        MEMORY_VARIABLE: str(mebibytes(options.memory) << 20),
    }
    if options.gpu:
        plain["K8SFLOW_GPUS"] = str(options.gpu)
    return [{"name": name, "value": value} for name, value in sorted(plain.items())]


def _temporary(options: BatchOptions) -> dict[str, str]:
    if not options.has_tmpfs:
        return {}
    folder = options.tmpfs_path or DEFAULT_TMPFS_PATH
    return {"K8SFLOW_TEMPDIR": folder, **({} if options.tmpfs_tempdir is False else {"TMPDIR": folder})}


def _linux(options: BatchOptions) -> Document:
    found: Document = {}
    if options.shared_memory is not None:
        found["sharedMemorySize"] = mebibytes(options.shared_memory)
    if options.max_swap is not None:
        found["maxSwap"] = options.max_swap
    if options.swappiness is not None:
        found["swappiness"] = options.swappiness
    if options.has_tmpfs:
        assert options.memory is not None, "every job requests memory"
        size = mebibytes(options.tmpfs_size) if options.tmpfs_size is not None else mebibytes(options.memory) // 2
        folder = options.tmpfs_path or DEFAULT_TMPFS_PATH
        found["tmpfs"] = [{"containerPath": folder, "size": size, "mountOptions": ["mode=1777"]}]
    devices = [f"/dev/neuron{n}" for n in range(options.inferentia or options.trainium or 0)]
    devices += [f"/dev/infiniband/uverbs{n}" for n in range(options.efa or 0)]
    if devices:
        found["devices"] = [
            {"hostPath": path, "containerPath": path, "permissions": ["READ", "WRITE"]} for path in devices
        ]
    return found


def _volumes(options: BatchOptions) -> tuple[list[Document], list[Document]]:
    """The volumes of a container, and where they are mounted."""
    wanted: list[tuple[str, dict[str, Any]]] = [
        (folder, {"host": {"sourcePath": folder}}) for folder in options.host_volumes or ()
    ]
    for system, folder in (options.efs_volumes or {}).items():
        configuration = {"fileSystemId": system, "rootDirectory": "/", "transitEncryption": "ENABLED"}
        wanted.append((folder, {"efsVolumeConfiguration": configuration}))
    volumes = [{"name": f"volume-{number}", **source} for number, (_, source) in enumerate(wanted)]
    mounts = [
        {"containerPath": folder, "sourceVolume": f"volume-{number}", "readOnly": False}
        for number, (folder, _) in enumerate(wanted)
    ]
    return volumes, mounts
