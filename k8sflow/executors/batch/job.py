"""One job of AWS Batch with its tasks: single, an array job with a child for each task, or a multi-node job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from k8sflow.aws import diagnosis
from k8sflow.aws.api import MOST_DESCRIBED
from k8sflow.aws.document import Document
from k8sflow.aws.outcome import ENDED, JobEnd, JobState, Waiting, job_state
from k8sflow.aws.queue import Queue
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.task.result import TaskResult, ended_with
from k8sflow.task.spec import TaskSpec

# In the ids of the nodes of a multi-node job, before the index of the node:
# https://docs.aws.amazon.com/batch/latest/userguide/multi-node-parallel-jobs.html
_NODE = "#"
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
        nodes: How many nodes a multi-node job has, each with a task; 1 for other jobs.
        tasks: The tasks that have not ended, by their index among the children.
    """

    id: str
    options: BatchOptions
    queue: Queue
    size: int = 1
    nodes: int = 1
    tasks: dict[int, TaskInJob] = field(default_factory=dict)
    is_ending: bool = False
    is_ended_by_node: bool = False
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
        if self.nodes > 1:
            return [self.id, *self._other_nodes()]
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
        if _NODE in document["jobId"]:
            yield from self._ended_by_node(str(document["jobId"]), state)
            return
        self._is_over = self._is_over or (self.nodes > 1 and isinstance(state, JobEnd))
        for task in [*self._of(str(document["jobId"]))]:
            task.misses = 0
            if isinstance(state, JobEnd) and self.nodes > 1 and task.index:
                yield task, replace(state, log_stream="")  # which is that of the main node
            else:
                yield task, state

    def _other_nodes(self) -> list[str]:
        """The ids of the nodes other than the main one while they run: AWS Batch itself doesn't act on their ends."""
        if self.is_ending or not any(task.is_running for task in self.tasks.values()):
            return []
        return [f"{self.id}{_NODE}{index}" for index in self.tasks if index]

    def _ended_by_node(self, described: str, state: JobState) -> Iterator[tuple[TaskInJob, JobState]]:
        """The ends of all tasks, where a node other than the main one has failed: they succeed and fail as one."""
        failed = self.tasks.get(int(described.rpartition(_NODE)[2]))
        if self._is_over or failed is None or not isinstance(state, JobEnd) or state.has_succeeded:
            return
        self._is_over = self.is_ended_by_node = True
        for task in [*self.tasks.values()]:
            yield task, state if task is failed else JobEnd(ended_with(failed.spec.name))

    def missed(self, described: str) -> Iterator[tuple[TaskInJob, JobState]]:
        """The new states of its tasks where AWS Batch doesn't know an id, again and again."""
        if _NODE in described:
            return
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
