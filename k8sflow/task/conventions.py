"""Conventions between a task's process and whatever runs it: the local executor, or the agent in a pod."""

from __future__ import annotations

import os
import signal
from enum import Enum

# Sent when the task's time is over. Neither SIGALRM nor any timer of the process is used: those are free for the step
# and its libraries. SIGVTALRM is useful to them only with ``ITIMER_VIRTUAL``, which hardly anything sets. Its default
# action ends the process: a task whose step has not started has nothing to clean up.
# Windows, from where runs can be driven, has no such signal, and runs no task.
TIME_IS_OVER: signal.Signals = getattr(signal, "SIGVTALRM", signal.SIGTERM)
# The environment variable with the file descriptor that a pod's task writes its result to.
RESULT_FD_VARIABLE = "K8SFLOW_RESULT_FD"
# The environment variable that is set if the task is the only one that its cgroup has had.
OWN_CGROUP_VARIABLE = "K8SFLOW_OWN_CGROUP"
# Written to a task's result before its step runs; whitespace that JSON may start with. A process that ended without it
# was still importing the flow.
ENTERED = b"\n"
# The environment variable with the path of a file that exists as soon as the task's pod is on its way out.
NOTICE_VARIABLE = "K8SFLOW_PREEMPTION_NOTICE"
# The environment variable with the address of the first of the processes that run together, each in a pod of its own.
MAIN_ADDRESS_VARIABLE = "K8SFLOW_MAIN_ADDRESS"
# The environment variable with the number of GPUs that a task's pod requests, if it requests any.
GPUS_VARIABLE = "K8SFLOW_GPUS"


class Surroundings(Enum):
    """The surroundings of a task; the value is the word for them in messages."""

    PROCESS = "task"
    POD = "pod"
    JOB = "job"

    @staticmethod
    def of_agent() -> Surroundings:
        """The surroundings of an agent: AWS Batch gives each of its jobs an id."""
        return Surroundings.JOB if "AWS_BATCH_JOB_ID" in os.environ else Surroundings.POD
