"""The first process of a job of AWS Batch: gives the agent the surroundings that it has in a pod.

The variables of AWS Batch: https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile

from k8sflow.storage.patience import FIRST_ANSWER_SECONDS
from k8sflow.storage.run_store import RunStore
from k8sflow.task.batch import TaskBatch
from k8sflow.task.container_ends import SIGNALLED
from k8sflow.task.conventions import MAIN_ADDRESS_VARIABLE
from k8sflow.task.host import agent
from k8sflow.task.host.batch_nodes import wait_for_nodes

_NODE = "AWS_BATCH_JOB_NODE_INDEX"
_INDICES = ("AWS_BATCH_JOB_ARRAY_INDEX", _NODE)
_NODES = "AWS_BATCH_JOB_NUM_NODES"
_MAIN_ADDRESS = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"


def main() -> int:
    """Runs the agent in a folder of its own, and returns the container's exit code."""
    surround()
    os.chdir(tempfile.mkdtemp(prefix="k8sflow-"))  # the image's folder may belong to another user
    code = agent.main()
    if code == 0 and _NODES in os.environ and os.environ.get(_NODE) == "0":
        _wait_for_nodes()
    return code


def _wait_for_nodes() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGNALLED + signal.SIGTERM))  # the first process has no default
    options = agent.read_options()
    tasks = TaskBatch.from_json(options.tasks)
    run_store = RunStore(agent.open_bucket(options, FIRST_ANSWER_SECONDS), tasks.template.flow, tasks.template.run)
    wait_for_nodes(run_store, tasks, agent.write_line)


def surround() -> None:
    """Sets the variables that the agent and the task read."""
    for name in _INDICES:
        if (index := os.environ.get(name)) is not None:
            os.environ[agent.INDEX_VARIABLE] = index
    os.environ.setdefault("K8SFLOW_POD", os.environ.get("AWS_BATCH_JOB_ID", ""))
    if _NODES in os.environ:  # the main node isn't given its own address
        os.environ[MAIN_ADDRESS_VARIABLE] = os.environ.get(_MAIN_ADDRESS) or _own_address()


def _own_address() -> str:
    return socket.gethostbyname(socket.gethostname())
