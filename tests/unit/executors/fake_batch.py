"""A scripted AWS Batch: jobs have the states that a test gives them, or run through by themselves."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.aws.api import Submitted
from k8sflow.aws.document import Document
from k8sflow.errors import BatchError
from k8sflow.executors.batch.submission import tasks_of
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskSpec
from tests.support import wait_for

ENDED = {"SUCCEEDED", "FAILED"}


@dataclass
class FakeJob:
    """A job, with the states of its children or of itself (index 0)."""

    id: str
    request: Document
    tasks: TaskBatch
    states: dict[int, Document] = field(default_factory=dict)

    @property
    def is_array(self) -> bool:
        return "arrayProperties" in self.request


class FakeBatch:
    """AWS Batch in this process.

    Args:
        runs: How many tasks run at a time by themselves, each until the next time it is asked about; 0 for those that
            the test sets.
        on_end: Called with each task that has run through, in place of its agent.
    """

    def __init__(self, runs: int = 0, on_end: Callable[[TaskSpec], None] = lambda _: None) -> None:
        self.calls: Counter[str] = Counter()
        self.asked: list[int] = []
        self.jobs: dict[str, FakeJob] = {}
        self.definitions: dict[str, Document] = {}
        self.terminated: list[str] = []
        self.refuse_submit: Exception | None = None
        self.refuse_terminate: set[str] = set()
        self.is_alone = True
        self.logs: dict[str, list[bytes]] = {}
        self.hides_children = False
        self.queue_document: Document | None = {
            "jobQueueName": "q",
            "state": "ENABLED",
            "status": "VALID",
            "computeEnvironmentOrder": [],
        }
        self.compute: list[Document] = []
        self._runs = runs
        self._on_end = on_end
        self._lock = threading.RLock()
        self._waiting: list[tuple[str, int]] = []
        self._running: list[tuple[str, int]] = []

    # ------------------------------------------------------------------ the API

    def describe_jobs(self, ids: Sequence[str]) -> list[Document]:
        assert 0 < len(ids) <= 100
        with self._lock:
            self.calls["describe_jobs"] += 1
            self.asked.append(len(ids))
            self._tick()
            return [document for each in ids if (document := self._describe(each)) is not None]

    def submit(self, request: Document) -> Submitted:
        self.calls["submit"] += 1
        if self.refuse_submit is not None:
            raise self.refuse_submit
        tasks = tasks_of(_as_description(request))
        assert tasks is not None
        with self._lock:
            job = FakeJob(f"job{len(self.jobs)}", request, tasks)
            self.jobs[job.id] = job
            self._waiting += [(job.id, index) for index in range(len(tasks) if job.is_array else 1)]
        return Submitted(job.id, is_alone=self.is_alone)

    def terminate(self, job: str, reason: str) -> None:
        with self._lock:
            if job in self.refuse_terminate:
                raise BatchError("no", code="AccessDeniedException")
            self.terminated.append(job)
            found = self.jobs.get(job.partition(":")[0])
            if found is None:
                raise BatchError("no such job", code="ClientException")
            for index in range(len(found.tasks)):
                found.states.setdefault(index, {"status": "FAILED", "statusReason": reason, "isTerminated": True})

    def jobs_named(self, queue: str, prefix: str) -> Iterator[Document]:
        self.calls["list_jobs"] += 1
        for job in self.jobs.values():
            if job.request["jobQueue"] == queue and job.request["jobName"].startswith(prefix):
                yield {"jobId": job.id, "jobName": job.request["jobName"], "status": self._status(job)}

    def definition(self, name: str, document: Document) -> str:
        self.calls["definition"] += 1
        self.definitions[name] = document
        return f"arn:{name}:1"

    def queue(self, name: str) -> Document | None:
        return self.queue_document

    def environments(self, names: Sequence[str]) -> list[Document]:
        return self.compute

    def log_lines(self, group: str, stream: str) -> list[bytes]:
        return self.logs.get(f"{group}:{stream}", [])

    def limit_patience(self, seconds: float) -> None:
        pass

    # ------------------------------------------------------------------ the test's side

    def wait_for_jobs(self, count: int) -> list[FakeJob]:
        wait_for(lambda: len(self.jobs) >= count)
        return list(self.jobs.values())

    def set(self, job: str, status: str, index: int = 0, **more: Any) -> None:
        with self._lock:
            self.jobs[job].states[index] = {"status": status, **more}

    def _status(self, job: FakeJob) -> str:
        size = len(job.tasks) if job.is_array else 1
        states = {job.states.get(index, {"status": "RUNNABLE"})["status"] for index in range(size)}
        return "RUNNABLE" if states - ENDED else min(states)

    def _tick(self) -> None:
        """Ends the tasks that run, and starts others."""
        if not self._runs:
            return
        for job, index in self._running:
            self._on_end(self.jobs[job].tasks[index])
            self.jobs[job].states[index] = {"status": "SUCCEEDED", "startedAt": 1}
        self._running = self._waiting[: self._runs]
        self._waiting = self._waiting[self._runs :]
        for job, index in self._running:
            self.jobs[job].states[index] = {"status": "RUNNING", "startedAt": 1}

    def _describe(self, each: str) -> Document | None:
        name, colon, index = each.replace("#", ":").partition(":")
        job = self.jobs.get(name)
        if job is None:
            return None
        own = _as_description(job.request)
        if colon and self.hides_children:
            return None
        if colon:
            return {**own, "jobId": each, **job.states.get(int(index), {"status": "RUNNABLE"})}
        if not job.is_array:
            return {**own, "jobId": each, **job.states.get(0, {"status": "RUNNABLE"})}
        summary = Counter(state["status"] for state in job.states.values())
        summary["RUNNABLE"] += len(job.tasks) - len(job.states)
        return {
            **own,
            "jobId": each,
            "status": "PENDING",
            "arrayProperties": {"size": len(job.tasks), "statusSummary": dict(summary)},
        }


def _as_description(request: Document) -> Document:
    """The part of a request that a description repeats."""
    return {
        "jobName": request["jobName"],
        "parameters": request.get("parameters") or {},
        "container": {"command": (request.get("containerOverrides") or {}).get("command", [])},
    }
