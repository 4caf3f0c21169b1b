"""The task that this process was started for, until the flow's file asks for its command line: then it runs.

A fork of the fork server runs the flow's file as ``__main__``, as a new interpreter would. Where the file makes an
instance of the flow, which on a person's command line runs a command, the task runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from k8sflow.errors import K8sflowError, RunError
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord
from k8sflow.task.conventions import ENTERED
from k8sflow.task.failure import failure
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.recompile import recompiled
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec


@dataclass
class PendingTask:
    """A task that runs when the flow's class is known.

    Args:
        spec: Which task.
        record: The run's record.
        store: Where the run's state is.
        folder: The folder of the flow in which the run is.
        result: A file descriptor that takes the result.
        compression: The compression of artifacts: ``none`` or ``zstd``.
    """

    spec: TaskSpec
    record: RunRecord
    store: ObjectStore
    folder: str
    result: int
    compression: str
    code: int | None = field(default=None, init=False)
    threads: Sequence[threading.Thread] = field(default=(), init=False)

    def begin(self, instance: FlowSpec) -> NoReturn:
        """Runs the task where the file makes an instance of the flow, and ends as the command line does.

        Raises:
            SystemExit: Always, with the exit code that follows from the result.
        """
        sys.exit(self.run(type(instance), vars(instance)))

    def run(self, flow: type[FlowSpec], attributes: Mapping[str, Any] | None = None) -> int:
        """Runs the task, reports its result, and returns the exit code that follows from it."""
        if self.code is not None:  # the file makes a second instance after the first one
            return self.code
        self.threads = threading.enumerate()
        with contextlib.suppress(BrokenPipeError):
            os.write(self.result, ENTERED)
        try:
            if flow.__name__ != self.record.flow:
                raise RunError(
                    f"the file runs the flow {flow.__name__} in a task of {self.record.flow}.",
                    cause="It chooses its flow by something that a task sees differently.",
                    advice="Choose it by the command line's first word, or give each flow a file of its own.",
                )
            definition = recompiled(flow, attributes, self.record, self.store, ConfigSet(flow))
            runner = TaskRunner(
                definition, self.record, self.store, self.folder, is_own_process=True, compression=self.compression
            )
            result = runner.run(self.spec)
        except K8sflowError as error:
            result = failure(error)
        return self.report(result)

    def report(self, result: TaskResult) -> int:
        """Hands the result to the driver; returns the exit code that follows from it."""
        with contextlib.suppress(BrokenPipeError), os.fdopen(self.result, "wb") as pipe:
            pipe.write(result.to_json().encode("utf-8", "replace"))
        self.code = int(result.outcome.is_failure)
        return self.code


def finish_threads(before: Sequence[threading.Thread]) -> None:
    """Waits for threads as Python does at its end, but not for those that ran before the step.

    Args:
        before: The threads that ran before the step.
    """
    for hook in reversed(getattr(threading, "_threading_atexits", [])):
        hook()  # ends the threads of pools (concurrent.futures.thread)
    for thread in threading.enumerate():
        if not thread.daemon and thread not in before and thread is not threading.current_thread():
            thread.join()
