"""The position of a task in its gang, the tasks that run together, as training libraries expect it in the environment.

The variables are those of PyTorch (https://pytorch.org/docs/stable/distributed.html#environment-variable-initialization)
and the defaults of ``torchrun``'s options: it reads each of them from ``PET_`` and the option's name
(https://github.com/pytorch/pytorch/blob/main/torch/distributed/run.py). Not set are those whose defaults are right:
PET_RDZV_BACKEND, since the static rendezvous is the one that uses the address of the first process and keeps the ranks
of the nodes; and PET_NPROC_PER_NODE, one process, unless the task has a pod with GPUs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from k8sflow.flow.current import Parallel
from k8sflow.task.conventions import GPUS_VARIABLE, MAIN_ADDRESS_VARIABLE
from k8sflow.task.spec import TaskName, TaskSpec

_HERE = "127.0.0.1"
# Below the ports that Linux gives to connections (net.ipv4.ip_local_port_range).
_FIRST_PORT, _PORTS = 20_000, 12_000


def parallel_of(spec: TaskSpec) -> Parallel:
    """The task's position, as ``current.parallel`` has it."""
    *around, index = spec.name.path
    control = TaskName(spec.name.step, (*around, 0), spec.name.turn)
    address = os.environ.get(MAIN_ADDRESS_VARIABLE) or _HERE
    return Parallel(address, num_nodes=spec.nodes, node_index=index, control_task_id=control.id)


@contextmanager
def environment_set(spec: TaskSpec, parallel: Parallel) -> Iterator[None]:
    """Sets the variables for a while; those that the user has set keep their values."""
    before = dict(os.environ)
    for name, value in _variables(spec, parallel).items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


def _variables(spec: TaskSpec, parallel: Parallel) -> dict[str, str]:
    is_alone_here = MAIN_ADDRESS_VARIABLE in os.environ  # each has a pod of its own
    rank, nodes, port = str(parallel.node_index), str(parallel.num_nodes), str(_port(spec))
    gpus = os.environ.get(GPUS_VARIABLE) if is_alone_here else None
    return {
        "MASTER_ADDR": parallel.main_ip,
        "MASTER_PORT": port,
        "RANK": rank,
        "WORLD_SIZE": nodes,
        "LOCAL_RANK": "0" if is_alone_here else rank,
        "LOCAL_WORLD_SIZE": "1" if is_alone_here else nodes,
        "PET_MASTER_ADDR": parallel.main_ip,
        "PET_MASTER_PORT": port,
        "PET_NNODES": nodes,
        "PET_NODE_RANK": rank,
        **({"PET_NPROC_PER_NODE": gpus} if gpus else {}),
    }


def _port(spec: TaskSpec) -> int:
    """A port on which all of them agree, and which others on this machine hardly use."""
    text = "\0".join([spec.flow, spec.run, str(spec.first), str(spec.attempt)])
    return _FIRST_PORT + int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % _PORTS
