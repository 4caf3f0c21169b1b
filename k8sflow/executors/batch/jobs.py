"""The jobs of one run on AWS Batch, in one thread: their submission, one poll for all of them, their ends."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

from k8sflow.aws import diagnosis
from k8sflow.aws.api import MOST_DESCRIBED, BatchApi
from k8sflow.aws.outcome import CANCELLED, JobEnd, JobState, Running, Waiting
from k8sflow.errors import BatchError
from k8sflow.executors.backlog import Backlog
from k8sflow.executors.base import Emit, Finished, Queued, Started
from k8sflow.executors.batch.earlier import EarlierJob, earlier_jobs
from k8sflow.executors.batch.job import JobInBatch, TaskInJob
from k8sflow.executors.batch.output import StoredOutput
from k8sflow.executors.batch.queues import Queues
from k8sflow.executors.batch.results import Results
from k8sflow.executors.batch.submission import MOST_CHILDREN, definition_of, in_requests, request_of
from k8sflow.executors.context import RunContext
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.jitter import JITTER
from k8sflow.task import container_ends
from k8sflow.task.batch import TaskBatch
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec

# ECS kills a container half a minute after SIGTERM.
CANCEL_SECONDS = 90.0
_FIRST_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 5.0
_POLL_GROWTH = 1.15
# Where the children of a terminated array job are still there, some of them are terminated one by one.
_CHILDREN_SECONDS = 45.0
_AT_ONCE = 16
_SMALLEST_ARRAY = 2


class Jobs:
    """The jobs of one run; ``submit``, ``stop`` and ``wake`` may be called in any thread, the rest in one.

    Args:
        api: AWS Batch.
        context: The run.
        region: The region, for errors.
    """

    def __init__(self, api: BatchApi, context: RunContext, region: str) -> None:
        self.api = api
        self.context = context
        self._emit: Emit = context.report
        self._queues = Queues(api, region)
        self._results = Results(api, context.run_store)
        self._backlog = Backlog(lambda _: _SMALLEST_ARRAY, lambda _: 1, MOST_CHILDREN)
        self._submitted: deque[Sequence[TaskSpec]] = deque()
        self._jobs: dict[str, JobInBatch] = {}
        self._earlier: dict[tuple[TaskName, int], EarlierJob] = {}
        self._definitions: dict[str, str] = {}
        self._followed: dict[tuple[TaskName, int], StoredOutput] = {}
        self._woken = threading.Event()
        self._is_stopping = threading.Event()
        self._poll_seconds = _FIRST_POLL_SECONDS
        self._has_news = False
        self._pool = ThreadPoolExecutor(_AT_ONCE, "k8sflow-batch-store")

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Takes tasks; their jobs are submitted as soon as there is room."""
        self._submitted.append(tasks)
        self._woken.set()

    def stop(self) -> None:
        """Lets ``serve`` return; jobs that have not ended keep running."""
        self._is_stopping.set()
        self._woken.set()

    def serve(self) -> None:
        """Runs what is submitted until ``stop``.

        Raises:
            BatchError: AWS Batch can't be used any more.
        """
        record = self.context.record
        queues = [self._queue_name(options) for options in self.context.batch.values()]
        self._earlier = earlier_jobs(self.api, queues, record.flow, record.run)
        due = 0.0
        while not self._is_stopping.is_set():
            self._woken.clear()
            self._take_in()
            if self._jobs and time.monotonic() >= due:
                due = time.monotonic() + self.poll()
            again = self._fill()  # after the poll, which makes room
            waits = [due] if self._jobs else []
            waits += [again] if again is not None else []
            self._woken.wait(max(0.0, min(waits) - time.monotonic()) if waits else None)

    def poll(self) -> float:
        """Asks for the states of all jobs, and reports what has changed; returns after how many seconds to ask again.

        There is one request for each 100 ids.
        """
        asked = [(each, job) for job in list(self._jobs.values()) for each in job.ids()]
        changes = [*chain.from_iterable(map(self._described, _chunks(asked)))]
        self._has_news = False
        ended = [(job, task, state) for job, task, state in changes if isinstance(state, JobEnd)]
        for job, task, state in changes:
            self._show(job, task, state)
        self._show_output()
        self._finish(ended)
        grown = min(_LONGEST_POLL_SECONDS, self._poll_seconds * _POLL_GROWTH)
        self._poll_seconds = _FIRST_POLL_SECONDS if self._has_news else grown
        if any(job.asks_again for job in self._jobs.values()):
            return 0.0
        # A run that is as wide as 10,000 branches asks more seldom, and no two drivers ask in step.
        wide = len(asked) / MOST_DESCRIBED / 10
        return max(self._poll_seconds, wide) * JITTER.uniform(0.8, 1.2)

    def send_ends(self) -> None:
        """Terminates every job that has not ended; called in any thread."""
        for job in list(self._jobs.values()):
            job.is_ending = True
            self.api.terminate(job.id, CANCELLED)

    def cancel(self) -> None:
        """Terminates the jobs, waits until none of them runs, and finishes what is unfinished as cancelled.

        Raises:
            BatchError: Something doesn't end.
        """
        self.send_ends()
        started = time.monotonic()
        is_by_child = False
        while self._jobs:
            waited = time.monotonic() - started
            if waited > CANCEL_SECONDS:
                raise BatchError(
                    f"{CANCEL_SECONDS:.0f} s after they were terminated, jobs of the run are still not over: "
                    f"{', '.join(self._jobs)}.",
                    advice="Their instances may not answer; see them in the console of AWS Batch.",
                )
            if waited > _CHILDREN_SECONDS and not is_by_child:
                is_by_child = True
                for job in self._jobs.values():
                    for each in job.ids()[:MOST_DESCRIBED] if job.size > 1 else ():
                        self.api.terminate(each, CANCELLED)
            time.sleep(self._poll_while_ending())
        cancelled = container_ends.cancelled()
        for spec in (*chain.from_iterable(self._submitted), *self._backlog.clear()):
            self._emit(Finished(spec, cancelled))

    def _poll_while_ending(self) -> float:
        """Finishes the tasks whose jobs have ended: as cancelled, whatever the jobs say."""
        asked = [(each, job) for job in list(self._jobs.values()) for each in job.ids()]
        for job, task, state in chain.from_iterable(map(self._described, _chunks(asked))):
            if isinstance(state, JobEnd):
                self._end(job, task, container_ends.cancelled())
        return _FIRST_POLL_SECONDS

    # ------------------------------------------------------------------ submission

    def _take_in(self) -> None:
        """Passes on the submitted tasks: to jobs of an earlier driver that have them, or to the backlog."""
        now = time.monotonic()
        while self._submitted:
            tasks = self._submitted.popleft()
            new = [task for task in tasks if not self._take_over(task)] if self._earlier else tasks
            if new:
                self._backlog.add(new, now)

    def _take_over(self, spec: TaskSpec) -> bool:
        found = self._earlier.pop((spec.name, spec.attempt), None)
        if found is None:
            return False
        options = self._options_of(spec)
        job = self._jobs.setdefault(found.id, JobInBatch(found.id, options, self._queues.find(found.queue), found.size))
        job.add(found.index, spec)
        return True

    def _fill(self) -> float | None:
        """Submits jobs while there is room; returns when to try again if nothing changes."""
        while not self._is_stopping.is_set() and (room := self._room):
            tasks = self._backlog.take(time.monotonic(), room)
            if tasks is None:
                return self._backlog.next_due()
            for part in in_requests(tasks):
                self._start(part)
        return None

    @property
    def _room(self) -> int:
        """The number of further tasks that may be in AWS Batch, which has queues for any number."""
        if self.context.max_workers is None:
            return sys.maxsize
        return max(0, self.context.max_workers - sum(len(job.tasks) for job in self._jobs.values()))

    def _start(self, tasks: TaskBatch) -> None:
        options = self._options_of(tasks.template)
        try:
            queue = self._queues.find(self._queue_name(options))
            definition = self._definition(tasks, options, is_fargate=queue.is_fargate)
            job = self.api.submit(request_of(self.context, tasks, options, self._queue_name(options), definition))
        except BatchError as error:
            detail = f"{error.summary}\n{error.cause}".strip()
            refused = diagnosis.job_refused(detail, error.advice, is_final=bool(error.code))
            for spec in tasks:
                self._emit(Finished(spec, refused))
            return
        is_array = len(tasks) > 1 and tasks.template.nodes == 1
        self._jobs[job] = JobInBatch(job, options, queue, len(tasks) if is_array else 1)
        for index, spec in enumerate(tasks):
            self._jobs[job].add(index, spec)
        self._poll_seconds = _FIRST_POLL_SECONDS

    def _definition(self, tasks: TaskBatch, options: BatchOptions, *, is_fargate: bool) -> str:
        if options.job_definition is not None:
            return options.job_definition
        if tasks.template.memory and tasks.template.nodes == 1:  # the job overrides it
            options = replace(options, memory=self.context.batch[tasks.template.name.step].memory)
        definition = definition_of(self.context, tasks, options, is_fargate=is_fargate)
        name = definition.name
        if name not in self._definitions:
            self._definitions[name] = self.api.definition(name, definition.document())
        return self._definitions[name]

    def _options_of(self, spec: TaskSpec) -> BatchOptions:
        options = self.context.batch[spec.name.step]
        return replace(options, memory=spec.memory) if spec.memory else options

    def _queue_name(self, options: BatchOptions) -> str:
        return str(options.queue)

    # ------------------------------------------------------------------ states

    def _described(self, asked: Sequence[tuple[str, JobInBatch]]) -> Iterator[tuple[JobInBatch, TaskInJob, JobState]]:
        """The states of the tasks that at most 100 ids are about."""
        of = dict(asked)
        documents = {str(document["jobId"]): document for document in self.api.describe_jobs(list(of))}
        for described, job in asked:
            document = documents.get(described)
            states = job.missed(described) if document is None else job.take(document)
            for task, state in states:
                yield job, task, state

    def _show(self, job: JobInBatch, task: TaskInJob, state: JobState) -> None:
        match state:
            case Waiting():
                reason = job.explain(task, state)
                if reason is not None:
                    why = reason.explained
                    self._emit(Queued(task.spec, f"{why.summary} {why.detail}".strip(), why.resolution))
            case Running(where=where):
                self._started(task, where)
            case JobEnd(ran=ran):
                if ran:
                    self._started(task, f"job {job.id}")

    def _started(self, task: TaskInJob, where: str) -> None:
        if task.is_running:
            return
        task.is_running = self._has_news = True
        is_followed = len(self._followed) < self.context.settings.followed_tasks
        if is_followed:
            self._followed[task.spec.name, task.spec.attempt] = StoredOutput(self.context.run_store, task.spec)
        self._emit(Started(task.spec, where, is_followed))

    def _show_output(self) -> None:
        for found in self._pool.map(lambda output: [*output.new()], list(self._followed.values())):
            for output in found:
                self._emit(output)

    def _finish(self, ended: Iterable[tuple[JobInBatch, TaskInJob, JobEnd]]) -> None:
        """Reports the ends of tasks, with the rest of their output."""

        def read(found: tuple[JobInBatch, TaskInJob, JobEnd]) -> TaskResult:
            job, task, end = found
            return self._results.of(task.spec, end, job.options)

        ended = list(ended)
        for (job, task, _), result in zip(ended, self._pool.map(read, ended), strict=True):
            output = self._followed.pop((task.spec.name, task.spec.attempt), None)
            if output is not None:
                rest = output.new()
            else:
                late = StoredOutput(self.context.run_store, task.spec)
                rest = late.end() if task.is_running and result.outcome.is_failure else iter(())
            for each in rest:
                self._emit(each)
            self._end(job, task, result)

    def _end(self, job: JobInBatch, task: TaskInJob, result: TaskResult) -> None:
        job.ended(task)
        self._has_news = True
        if not job.tasks:
            self._jobs.pop(job.id, None)
        self._emit(Finished(task.spec, result))

    def close(self) -> None:
        """Gives back the threads."""
        with contextlib.suppress(RuntimeError):
            self._pool.shutdown(wait=True, cancel_futures=True)


def _chunks(asked: Sequence[tuple[str, JobInBatch]]) -> Iterator[Sequence[tuple[str, JobInBatch]]]:
    for start in range(0, len(asked), MOST_DESCRIBED):
        yield asked[start : start + MOST_DESCRIBED]
