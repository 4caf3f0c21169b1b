"""One task in this process: in a pod, or by hand as ``python flow.py step TASK --store URL``."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from k8sflow import config, debug_log, shadowing
from k8sflow.config import Settings
from k8sflow.errors import K8sflowError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import store_of
from k8sflow.storage.patience import FIRST_ANSWER_SECONDS, Patience, say
from k8sflow.storage.run_store import RUNS, RunStore
from k8sflow.task import streams
from k8sflow.task.conventions import OWN_CGROUP_VARIABLE, RESULT_FD_VARIABLE
from k8sflow.task.failure import failure
from k8sflow.task.inside.entry import PendingTask, finish_threads
from k8sflow.task.inside.measure import set_own_cgroup
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.recompile import recompiled
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec


def run_in_pod(instance: FlowSpec) -> NoReturn:
    """Runs the task of an agent's process where the flow's file makes an instance of the flow.

    It reads the command line of ``step`` itself: importing and building that of the flow takes a tenth of a second.
    The process ends here: threads of the flow's import don't hold it up.
    """
    before = threading.enumerate()
    streams.take_up()
    streams.renew()
    shadowing.protect()  # the flow's file may have added folders to sys.path
    result = int(os.environ.pop(RESULT_FD_VARIABLE))
    if os.environ.pop(OWN_CGROUP_VARIABLE, ""):
        set_own_cgroup()
    _, task, store_url = sys.argv[1:]
    try:
        settings = debug_log.configure(config.load(Path(sys.argv[0]).parent))
        spec, store = TaskSpec.from_json(task), _open(settings, store_url.removeprefix("--store="))
        record = RunStore(store, spec.flow, spec.run).read()
    except K8sflowError as error:
        with os.fdopen(result, "wb") as pipe:
            pipe.write(failure(error).to_json().encode("utf-8", "replace"))
        _leave(1, before)
    pending = PendingTask(spec, record, store, RUNS, result, settings.artifact_compression)
    _leave(pending.run(type(instance), vars(instance)), before)


def run_task(definition: FlowDefinition, settings: Settings, task: str, store_url: str, folder: str) -> int:
    """Runs a task for a person, and returns the exit code."""
    result = _result(definition, settings, TaskSpec.from_json(task), store_url, folder)
    if result.failure is not None:
        print(result.failure.summary, result.failure.detail, sep="\n")  # noqa: T201  for the person
    return int(result.outcome.is_failure)


def _leave(code: int, before: Sequence[threading.Thread]) -> NoReturn:
    """Ends the process as Python does, but for the threads that ran before the step."""
    finish_threads(before)
    atexit._run_exitfuncs()  # noqa: SLF001  as at the end of any Python process
    streams.flush()
    os._exit(code)


def _result(definition: FlowDefinition, settings: Settings, spec: TaskSpec, store_url: str, folder: str) -> TaskResult:
    try:
        store = _open(settings, store_url)
        record = RunStore(store, spec.flow, spec.run, folder).read()
        found = recompiled(definition.flow, definition.attributes, record, store, definition.configs)
        return TaskRunner(
            found, record, store, folder, is_own_process=True, compression=settings.artifact_compression
        ).run(spec)
    except K8sflowError as error:
        return failure(error)


def _open(settings: Settings, url: str) -> ObjectStore:
    patience = Patience(settings.storage_patience, FIRST_ANSWER_SECONDS, say)
    return store_of(settings, url, patience)
