"""The end of a multi-node job of AWS Batch: its main node leaves last, since AWS stops all others with it.

https://docs.aws.amazon.com/batch/latest/userguide/multi-node-parallel-jobs.html
"""

from __future__ import annotations

import time
from collections.abc import Callable

from k8sflow.errors import K8sflowError
from k8sflow.storage.run_store import RunStore
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result

# A node that is lost stores no result. The driver ends the job then; this is for a run without one.
LONGEST_SECONDS = 24 * 3600.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
_REPORT_AFTER_SECONDS = 10.0
# From the result of a node to the end of its agent.
_LINGER_SECONDS = 3.0


def wait_for_nodes(
    run_store: RunStore,
    tasks: TaskBatch,
    say: Callable[[str], None],
    seconds: float = LONGEST_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Waits until the tasks of all nodes but the first have a result in the store.

    Args:
        run_store: The run's records.
        tasks: The tasks of all nodes, in their order.
        say: Takes a message for people.
        seconds: How long it waits at most.
        sleep: Waits for some seconds.
    """
    missing = list(tasks)[1:]
    waited, pause, is_reported = 0.0, _FIRST_PAUSE_SECONDS, False
    while missing := [spec for spec in missing if not _has_result(run_store, spec)]:
        if waited >= seconds:
            say(f"doesn't wait any longer for {_named(missing)}.")
            return
        if waited >= _REPORT_AFTER_SECONDS and not is_reported:
            say(f"has ended, and waits for {_named(missing)}: AWS Batch stops all nodes with the main one.")
            is_reported = True
        sleep(pause)
        waited += pause
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
    sleep(_LINGER_SECONDS)


def _has_result(run_store: RunStore, spec: TaskSpec) -> bool:
    try:
        if committed_result(run_store, spec) is not None:
            return True
        return run_store.read_outcome(spec.name.step, spec.name.id, spec.attempt) is not None
    except K8sflowError:  # an outage, which may pass
        return False


def _named(specs: list[TaskSpec]) -> str:
    return ", ".join(str(spec.name) for spec in specs)
