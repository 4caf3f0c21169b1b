"""One job of AWS Batch with its tasks: single, an array job with a child for each task, or a multi-node job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8sflow.aws import diagnosis
from k8sflow.aws.api import MOST_DESCRIBED
from k8sflow.aws.document import Document
from k8sflow.aws.outcome import ENDED, JobEnd, JobState, Waiting, job_state
from k8sflow.aws.queue import Queue
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec

# AWS Batch may need a moment until a new job can be described.
_MOST_MISSES = 10


@dataclass
class TaskInJob:
    """A task whose end is still to be reported."""

    spec: TaskSpec
    index: int
    is_running: bool = False
    misses: int = 0


@dataclass
class JobInBatch:
    """A job with the tasks that have not ended.

    Args:
        id: AWS Batch's id of the job.
        options: Its requests.
        queue: Its queue.
        size: How many children an array job has; 1 for other jobs.
        tasks: The tasks that have not ended, by their index among the children.
    """

    id: str
    options: BatchOptions
    queue: Queue
    size: int = 1
    tasks: dict[int, TaskInJob] = field(default_factory=dict)
    is_ending: bool = False
    reasons: set[TaskResult] = field(default_factory=set)
    _summary: Mapping[str, Any] | None = None
    _asks_children: bool = True
    _misses_parent: int = 0
    _is_in_doubt: bool = False
    _is_over: bool = False

    def add(self, index: int, spec: TaskSpec) -> None:
        """Takes a task, whose child of the job has this index."""
        self.tasks[index] = TaskInJob(spec, index)

    def ids(self) -> list[str]:
        """The ids to describe now: of a wide array job its own, and those of its children after it has changed."""
        if self.size == 1 or self._is_in_doubt:
            return [self.id]
        if len(self.tasks) <= MOST_DESCRIBED or self._asks_children or self.is_ending:
            self._asks_children = False
            return [f"{self.id}:{index}" for index in self.tasks]
        return [self.id]

    @property
    def asks_again(self) -> bool:
        """True if its children are to be described at once."""
        return self.size > 1 and self._asks_children

    def take(self, document: Document) -> Iterator[tuple[TaskInJob, JobState]]:
        """The new states of its tasks, by a description of itself or of a child."""
        if document["jobId"] == self.id and self.size > 1:
            self._misses_parent, self._is_in_doubt = 0, False
            self._is_over = document.get("status") in ENDED
            for task in self.tasks.values():
                task.misses = 0
            summary = (document.get("arrayProperties") or {}).get("statusSummary")
            ended = sum(count for status, count in (summary or {}).items() if status in ENDED)
            # The descriptions of children may be older than the summary.
            is_behind = self._is_over or len(self.tasks) > self.size - ended
            self._asks_children = is_behind or summary != self._summary
            self._summary = summary
            return
        state = job_state(document, self.options, is_spot=self.queue.is_spot)
        for task in [*self._of(str(document["jobId"]))]:
            task.misses = 0
            yield task, state

    def missed(self, described: str) -> Iterator[tuple[TaskInJob, JobState]]:
        """The new states of its tasks where AWS Batch doesn't know an id, again and again."""
        if described == self.id and self.size > 1:
            self._misses_parent += 1
            for task in [*self.tasks.values()] if self._misses_parent >= _MOST_MISSES else ():
                yield task, JobEnd(diagnosis.job_missing())
            return
        for task in [*self._of(described)]:
            task.misses += 1
            if task.misses < _MOST_MISSES:
                continue
            if self.size == 1 or self._is_over:
                yield task, JobEnd(diagnosis.job_missing())
            else:  # the children of a new array job come minutes after it
                self._is_in_doubt = True

    def explain(self, task: TaskInJob, state: Waiting) -> TaskResult | None:
        """The reason why it waits, where that is news."""
        if task.is_running or state.reason is None or state.reason in self.reasons:
            return None
        self.reasons.add(state.reason)
        return state.reason

    def ended(self, task: TaskInJob) -> None:
        """Takes note that the end of a task is reported."""
        self.tasks.pop(task.index, None)

    def _of(self, described: str) -> Iterator[TaskInJob]:
        """The tasks that a description is about: all that run together, or the one of a child."""
        if self.size == 1:
            yield from self.tasks.values()
        elif (task := self.tasks.get(int(described.rpartition(":")[2] or 0))) is not None:
            yield task
