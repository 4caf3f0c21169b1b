"""The task that this process was started for, until the flow's file asks for its command line: then it runs.

A fork of the fork server runs the flow's file as ``__main__``, as a new interpreter would. Where the file makes an
instance of the flow, which on a person's command line runs a command, the task runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from k8sflow.errors import K8sflowError, RunError
from k8sflow.flow.configs import configs
from k8sflow.flow.decorators import mutators
from k8sflow.flow.graph import Graph
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord
from k8sflow.task.failure import failure
from k8sflow.task.inside.runner import TaskRunner
from k8sflow.task.protocol import ENTERED
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec


@dataclass
class PendingTask:
    """A task that runs when the flow's class is known.

    Args:
        spec: Which task.
        record: The run's record.
        store: Where the run's state is.
        place: The folder of the flow in which the run is.
        result: A file descriptor that takes the result.
    """

    spec: TaskSpec
    record: RunRecord
    store: ObjectStore
    place: str
    result: int
    code: int | None = field(default=None, init=False)
    threads: Sequence[threading.Thread] = field(default=(), init=False)

    def begin(self, flow: type[FlowSpec]) -> NoReturn:
        """Runs the task where the file makes an instance of the flow, and ends as the command line does.

        Raises:
            SystemExit: Always, with the exit code that follows from the result.
        """
        sys.exit(self.run(flow))

    def run(self, flow: type[FlowSpec]) -> int:
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
            self._bind(flow)
            graph = Graph.from_document(self.record.flow, self.record.graph)
            result = TaskRunner(flow, graph, self.record, self.store, self.place).run(self.spec)
        except K8sflowError as error:
            result = failure(error)
        return self.report(result)

    def report(self, result: TaskResult) -> int:
        """Hands the result to the driver; returns the exit code that follows from it."""
        with contextlib.suppress(BrokenPipeError), os.fdopen(self.result, "wb") as pipe:
            pipe.write(result.to_json().encode("utf-8", "replace"))
        self.code = int(result.outcome.is_failure)
        return self.code

    def _bind(self, flow: type[FlowSpec]) -> None:
        """Gives the flow the configs that its run was started with, and applies its mutators."""
        artifacts = ArtifactStore(self.store, self.record.flow)
        for name, found in configs(flow).items():
            if name in self.record.parameters:
                found.k8sflow_bind(artifacts.load(self.record.parameters[name], name))
        mutators.prepare(flow)


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
