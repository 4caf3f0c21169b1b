"""One task in this process, as a pod or a person runs it: ``python flow.py step TASK --store URL``."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from typing import NoReturn

from k8sflow.config import Settings
from k8sflow.errors import K8sflowError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.storage.open_store import open_store
from k8sflow.storage.patience import FIRST_ANSWER_SECONDS, Patience, say
from k8sflow.storage.run_store import RunStore
from k8sflow.task import streams
from k8sflow.task.failure import failure
from k8sflow.task.inside.entry import finish_threads
from k8sflow.task.inside.runner import TaskRunner
from k8sflow.task.protocol import ENTERED, RESULT_FD_VARIABLE
from k8sflow.task.recompile import recompiled
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec


def run_task(definition: FlowDefinition, settings: Settings, task: str, store_url: str, place: str) -> int:
    """Runs a task and returns the exit code.

    If a descriptor for the result is set, that is a process of its own for the task, which ends here:
    threads of the flow's import don't hold it up.
    """
    before = threading.enumerate()
    descriptor = os.environ.pop(RESULT_FD_VARIABLE, "")
    if descriptor:
        streams.renew()
        os.write(int(descriptor), ENTERED)
    result = _result(definition, settings, TaskSpec.from_json(task), store_url, place)
    code = int(result.outcome.is_failure)
    if descriptor:
        with os.fdopen(int(descriptor), "wb") as pipe:
            pipe.write(result.to_json().encode("utf-8", "replace"))
        _leave(code, before)
    if result.failure is not None:
        print(result.failure.summary, result.failure.detail, sep="\n")  # noqa: T201  for someone who runs the command by hand
    return code


def _leave(code: int, before: Sequence[threading.Thread]) -> NoReturn:
    """Ends the process as Python does, but for the threads that ran before the step."""
    finish_threads(before)
    atexit._run_exitfuncs()  # noqa: SLF001  as at the end of any Python process
    streams.flush()
    os._exit(code)


def _result(definition: FlowDefinition, settings: Settings, spec: TaskSpec, store_url: str, place: str) -> TaskResult:
    try:
        store = open_store(
            store_url,
            endpoint=settings.endpoint,
            region=settings.region,
            patience=Patience(settings.storage_patience, FIRST_ANSWER_SECONDS, say),
        )
        record = RunStore(store, spec.flow, spec.run, place).read()
        found = recompiled(definition.flow, definition.attributes, record, store, definition.configs)
        return TaskRunner(found, record, store, place).run(spec)
    except K8sflowError as error:
        return failure(error)
