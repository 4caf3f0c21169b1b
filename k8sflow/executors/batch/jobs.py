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

from k8sflow.aws import api_errors, diagnosis
from k8sflow.aws.api import MOST_DESCRIBED, BatchApi, LostAnswerError
from k8sflow.aws.names import job_prefix
from k8sflow.aws.outcome import CANCELLED, REPLACED, JobEnd, JobState, Running, Waiting
from k8sflow.debug_log import DebugLog
from k8sflow.errors import BatchError, LoginEndedError
from k8sflow.executors.backlog import Backlog
from k8sflow.executors.base import Emit, Finished, Output, Queued, Started
from k8sflow.executors.batch.earlier_jobs import EarlierJob, earlier_jobs
from k8sflow.executors.batch.job import JobInBatch, TaskInJob
from k8sflow.executors.batch.live import end_all, end_named
from k8sflow.executors.batch.output import StoredOutput
from k8sflow.executors.batch.queues import Queues
from k8sflow.executors.batch.results import Results
from k8sflow.executors.batch.strays import Strays
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
_log = DebugLog(__name__)


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
        self._is_ending = threading.Event()
        self._strays = Strays(api)
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
        self._earlier = earlier_jobs(self.api, self._queue_names, record.flow, record.run)
        due = 0.0
        while not self._is_stopping.is_set():
            self._woken.clear()
            self._take_in()
            if self._jobs and time.monotonic() >= due:
                due = time.monotonic() + self.poll()
            again = self._fill()  # after the poll, which makes room
            self._strays.end()
            waits = [due] if self._jobs else []
            waits += [each for each in (again, self._strays.due) if each is not None]
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
        """Terminates every job of the run that has not ended; called in any thread.

        Raises:
            BatchError: One can't be terminated; the others are.
        """
        self._is_ending.set()  # a job whose submit is in flight is terminated when its id is known
        jobs = list(self._jobs.values())
        for job in jobs:
            job.is_ending = True
        with contextlib.ExitStack() as calls:  # which does the second even if the first raises
            calls.callback(self.end_others)
            calls.callback(end_all, self.api, [job.id for job in jobs])

    def end_others(self) -> list[str]:
        """Terminates the jobs of the run that it doesn't wait for: an earlier driver's, and those of lost answers.

        Returns:
            Their ids; none where nothing else of the run is left.
        """
        record = self.context.record
        return end_named(self.api, self._queue_names, job_prefix(flow=record.flow, run=record.run), [*self._jobs])

    def end_strays(self) -> None:
        """Terminates the jobs of lost answers as they appear, where no task of the run is unfinished."""
        if self._jobs or self._submitted or len(self._backlog):
            return
        while self._strays.due is not None:
            self._strays.end(is_due=True)
            if not self._strays.new:
                return
            time.sleep(_FIRST_POLL_SECONDS)

    @property
    def has_strays(self) -> bool:
        """True if there may be jobs whose submits had no answer."""
        return bool(self._strays.new)

    def cancel(self) -> None:
        """Terminates the jobs, waits until none of them runs, and finishes what is unfinished as cancelled.

        Raises:
            BatchError: Something doesn't end.
        """
        self.send_ends()
        started = time.monotonic()
        is_by_child = False
        while left := [*self._jobs] or self.end_others() or self._strays.new:
            waited = time.monotonic() - started
            if waited > CANCEL_SECONDS:
                raise BatchError(
                    f"{CANCEL_SECONDS:.0f} s after they were terminated, jobs of the run are still not over: "
                    f"{', '.join(left)}.",
                    advice="Their instances may not answer; see them in the console of AWS Batch.",
                )
            if waited > _CHILDREN_SECONDS and not is_by_child:
                is_by_child = True
                arrays = [job for job in self._jobs.values() if job.size > 1]
                end_all(self.api, [each for job in arrays for each in job.ids()[:MOST_DESCRIBED]])
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
        new = JobInBatch(found.id, options, self._queues.find(found.queue), found.size, spec.nodes)
        job = self._jobs.setdefault(found.id, new)
        job.add(found.index, spec)
        return True

    def _fill(self) -> float | None:
        """Submits jobs while there is room; returns when to try again if nothing changes."""
        while not self._is_stopping.is_set() and (room := self._room):
            tasks = self._backlog.take(time.monotonic(), room)
            if tasks is None:
                return self._backlog.next_due()
            for part in in_requests(self.context, tasks, self._options_of(tasks.template)):
                if self._is_stopping.is_set():
                    self._submitted.append(part)
                else:
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
        name = self._queue_name(options)
        try:
            queue = self._queues.find(name)
            if (misfit := queue.misfit(options)) is not None:  # as with more memory after it ran out of it
                self._refuse(tasks, diagnosis.job_refused(misfit.summary, misfit.resolution, is_final=True))
                return
            definition = self._definition(tasks, options, is_fargate=queue.is_fargate)
            request = request_of(self.context, tasks, options, name, definition, is_fargate=queue.is_fargate)
            submitted = self.api.submit(request)
        except LoginEndedError:  # it is submitted when the run is attached to
            raise
        except LostAnswerError as error:
            self._strays.add(name, str(request["jobName"]))
            self._refuse(tasks, diagnosis.submit_unknown(str(error)))
            return
        except BatchError as error:
            detail = f"{error.summary}\n{error.cause}".strip()
            self._refuse(tasks, diagnosis.job_refused(detail, error.advice, is_final=api_errors.is_final(error)))
            return
        job, is_array = submitted.job, len(tasks) > 1 and tasks.template.nodes == 1
        if not submitted.is_alone:
            self._strays.add(name, str(request["jobName"]), job)
        self._jobs[job] = JobInBatch(job, options, queue, len(tasks) if is_array else 1, tasks.template.nodes)
        for index, spec in enumerate(tasks):
            self._jobs[job].add(index, spec)
        self._poll_seconds = _FIRST_POLL_SECONDS
        if self._is_ending.is_set():
            self._try_to_end(job, CANCELLED)

    def _refuse(self, tasks: TaskBatch, result: TaskResult) -> None:
        for spec in tasks:
            self._emit(Finished(spec, result))

    def _try_to_end(self, job: str, reason: str) -> None:
        try:
            self.api.terminate(job, reason)
        except BatchError as error:  # best effort: it is cancelled once more, or over already
            _log.debug("The job %s can't be terminated: %r", job, error)

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

    @property
    def _queue_names(self) -> list[str]:
        return [self._queue_name(options) for options in self.context.batch.values()]

    def _queue_name(self, options: BatchOptions) -> str:
        return str(options.queue)

    # ------------------------------------------------------------------ states

    def _described(self, asked: Sequence[tuple[str, JobInBatch]]) -> Iterator[tuple[JobInBatch, TaskInJob, JobState]]:
        """The states of the tasks that at most 100 ids are about."""
        of = dict(asked)
        documents = {str(document["jobId"]): document for document in self.api.describe_jobs(list(of))}
        for described, job in asked:
            document = documents.get(described)
            states = [*(job.missed(described) if document is None else job.take(document))]
            if states and (document is None or job.is_ended_by_node):  # it runs, or may, and its tasks will run again
                self._try_to_end(job.id if document is not None else described, REPLACED)
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

        def read(found: tuple[JobInBatch, TaskInJob, JobEnd]) -> tuple[TaskResult, list[Output]]:
            job, task, end = found
            result = self._results.of(task.spec, end, job.options)
            output = self._followed.get((task.spec.name, task.spec.attempt))
            if output is not None:
                return result, [*output.new()]
            is_shown = task.is_running and result.outcome.is_failure
            return result, [*StoredOutput(self.context.run_store, task.spec).end()] if is_shown else []

        ended = list(ended)
        for (job, task, _), (result, rest) in zip(ended, self._pool.map(read, ended), strict=True):
            self._followed.pop((task.spec.name, task.spec.attempt), None)
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
