"""A whole run in this process: the real scheduler, runner and store, without processes."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path
from typing import Any

from k8sflow.client import Run
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.core.scheduler import Scheduler
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec
from k8sflow.user import current_user
from tests.support import load_flow, write_flow


class Failed(Exception):
    """A failed task, with its ``result``."""

    def __init__(self, spec: TaskSpec, result: TaskResult) -> None:
        super().__init__(f"{spec.name}: {result}")
        self.spec = spec
        self.result = result
        assert result.failure is not None
        self.summary = result.failure.summary
        self.text = f"{self.summary}\n{result.failure.detail}\n{result.failure.resolution}"


def runner_of(
    flow: type[FlowSpec], folder: Path, run: str = "r1", store: ObjectStore | None = None, **values: Any
) -> TaskRunner:
    """The tasks of a new run, and everything that runs them."""
    store, definition = store or FolderStore(str(folder / "store")), compile_flow(flow)
    saved = ArtifactStore(store, flow.__name__)
    fixed = dict(definition.constants) | {
        name: values.get(name, parameter.default) for name, parameter in definition.parameters.items()
    }
    record = RunRecord(
        flow=flow.__name__,
        run=run,
        file="flow.py",
        parameters={name: saved.save(value, name) for name, value in fixed.items()},
        graph=definition.graph,
        user=current_user(),
    )
    RunStore(store, record.flow, run).create(record)
    return TaskRunner(definition, record, store)


def run_all(runner: TaskRunner, order: random.Random | None = None) -> Run:
    """Run the tasks one after the other, in the order of their groups or in a random one, and return the finished run.

    Raises:
        Failed: A task failed.
    """
    scheduler = Scheduler(runner.definition.graph, runner.record.run)
    ready = deque(scheduler.begin())
    while ready:
        if order is not None:
            ready.rotate(order.randrange(len(ready)))
        spec = ready.popleft()
        result = runner.run(spec)
        if result.transition is None:
            raise Failed(spec, result)
        for group in scheduler.finished(spec.name, result.transition):
            ready.extend(group)
    assert scheduler.is_done
    return Run(runner.run_store)


def run_source(folder: Path, source: str, **values: Any) -> Run:
    """Run a flow from its source."""
    return run_all(runner_of(load_flow(write_flow(folder, source)), folder, **values))
