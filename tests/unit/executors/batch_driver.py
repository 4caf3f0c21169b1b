"""The driver's side of tests of the executor for AWS Batch."""

from __future__ import annotations

import queue
from typing import Any

from k8sflow.config import Settings
from k8sflow.executors.base import Finished, TaskEvent
from k8sflow.executors.batch.executor import BatchExecutor
from k8sflow.executors.batch.jobs import Jobs
from k8sflow.executors.context import RunContext
from k8sflow.flow.decorators.batch_options import DEFAULT_BATCH_OPTIONS, BatchOptions, merge_batch
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import Commit, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.executors.fake_batch import FakeBatch

ROLE = "arn:aws:iam::123456789012:role/jobs"
OPTIONS = merge_batch(BatchOptions(queue="q", image="k8sflow:1", iam_role=ROLE), DEFAULT_BATCH_OPTIONS)
SECONDS = 20.0


class Driver:
    """The driver's side: an executor and what it said."""

    def __init__(
        self,
        server: FakeBatch,
        store: MemoryStore | None = None,
        batch: dict[str, BatchOptions] | None = None,
        **more: Any,
    ) -> None:
        self.events: queue.Queue[TaskEvent | Exception] = queue.Queue()
        self.run_store = RunStore(store or MemoryStore(), "Demo", "r1")
        steps = ("start", "work", "end")
        self.context = RunContext(
            report=self.events.put,
            record=RunRecord("Demo", "r1", "demo.py", {}, Graph("Demo"), user="ada"),
            run_store=self.run_store,
            settings=Settings(bucket="b", region="eu-west-1"),
            batch={**dict.fromkeys(steps, OPTIONS), **(batch or {})},
            **more,
        )
        self.executor = BatchExecutor(self.context, lambda: server)

    def commit(self, spec: TaskSpec) -> None:
        """Lets the store have the result of a task, as its agent would have written it."""
        self.run_store.commit(spec.name.step, spec.name.id, Commit(0, ("end",), {}))

    def stopped(self) -> Jobs:
        """The jobs, without a thread: the test polls by itself."""
        jobs = self.executor._jobs
        assert jobs is not None
        self.executor._stop(jobs)
        return jobs

    def next(self, kind: type[Any]) -> Any:
        """The next event, which has to be of a kind."""
        event = self.events.get(timeout=SECONDS)
        assert isinstance(event, kind), event
        return event

    def finished(self, count: int) -> dict[str, Outcome]:
        """The outcomes of so many tasks, by id; other events are skipped."""
        found: dict[str, Outcome] = {}
        while len(found) < count:
            event = self.events.get(timeout=SECONDS)
            assert not isinstance(event, Exception), event
            if isinstance(event, Finished):
                assert event.task.name.id not in found
                found[event.task.name.id] = event.result.outcome
        return found


def task(step: str, *path: int, attempt: int = 0, nodes: int = 1) -> TaskSpec:
    return TaskSpec("Demo", "r1", TaskName(step, path), attempt, nodes=nodes)


def branches(count: int, attempt: int = 0) -> list[TaskSpec]:
    return [task("work", index, attempt=attempt) for index in range(count)]
