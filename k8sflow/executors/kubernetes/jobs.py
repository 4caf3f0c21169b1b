"""The Jobs of one run, in one event loop: their owner, the queue before the API, one watch of pods."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from itertools import chain
from typing import Any

from k8sflow.errors import ApiStatusError, K8sflowError, KubernetesError
from k8sflow.executors.backlog import Backlog
from k8sflow.executors.base import Emit, Finished
from k8sflow.executors.context import RunContext
from k8sflow.executors.kubernetes import run_objects
from k8sflow.executors.kubernetes.earlier_jobs import EarlierJob, earlier_jobs
from k8sflow.executors.kubernetes.following import Following
from k8sflow.executors.kubernetes.job import JobOnCluster, Window, job_of, known_of
from k8sflow.executors.kubernetes.pod_ends import PodEnds
from k8sflow.executors.kubernetes.run_objects import RunObjects, delete_run
from k8sflow.executors.kubernetes.stuck import StuckPods
from k8sflow.executors.kubernetes.submission import job_name, task_job
from k8sflow.kubernetes import diagnosis, labels, node_fit, waiting
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.job import job_manifest
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.reflector import Change, Reflector
from k8sflow.kubernetes.service import service_manifest
from k8sflow.task import container_ends
from k8sflow.task.batch import TaskBatch
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.task.stored_results import committed_results

# How many pods of a run are live at a time, where the user says nothing: enough to keep a cluster busy.
DEFAULT_MAX_PODS = 100
_CLOSE_SECONDS = 10.0
_NODES_SECONDS = 60.0
# A Job is widened when there is room for this part of the window, or for less of it after so many seconds: each time is
# a request.
_ROOM_SHARE = 8
_LITTLE_ROOM_SECONDS = 1.0
_ADOPT_SECONDS = 0.1


class Jobs:
    """The Jobs of one run; every method but ``serve`` is called in the loop that ``serve`` runs in."""

    def __init__(self, api: KubernetesApi, context: RunContext) -> None:
        self.api = api
        self.context = context
        self.objects = RunObjects.of(context)
        self.namespace = self.objects.namespace
        self.emit: Emit = context.report
        self.is_cancelling = False
        self.run_store = context.run_store
        self.is_traced = context.record.is_traced
        self.following = Following(context.settings.followed_tasks)
        self._owner = context.owner
        self._has_owner = asyncio.Event()
        self._backlog = Backlog(self._indexed_from, self._per_pod)
        self._window = Window(context.max_workers or DEFAULT_MAX_PODS)
        self._room_changed = asyncio.Event()
        self._little_room_since: float | None = None
        self._jobs: dict[str, JobOnCluster] = {}
        self._earlier: dict[tuple[TaskName, int], EarlierJob] = {}
        self._taken_over: dict[str, JobOnCluster] = {}
        self._narrow: deque[JobOnCluster] = deque()
        self._submitted: list[Sequence[TaskSpec]] = []
        self._creating: set[asyncio.Task[None]] = set()
        self._beside: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_finished: str | None = None
        self._asking_for_nodes = asyncio.Lock()
        self._nodes: tuple[float, list[Manifest] | None] | None = None
        self._pods = Reflector(
            api, self.objects.pods, label_selector=self.objects.selector, on_change=self._pod_changed, keep=known_of
        )
        self._pod_ends = PodEnds(self._pods, self.objects)
        self._stuck = StuckPods(api, self.namespace, self._jobs.values)

    async def serve(self) -> None:
        """Runs what is submitted until ``close``.

        Raises:
            Exception: Whatever makes it impossible to go on.
        """
        is_new = False
        try:
            if self._owner is None:
                self._owner, is_new = await run_objects.make_owner(
                    self.api, self.objects, self.context.settings.kubernetes_runtime_image
                )
                self.spawn(run_objects.keep_lease(self.api, self.objects))
            self._has_owner.set()
            if not is_new:
                self._earlier = await earlier_jobs(self.api, self.objects)
            self.spawn(self._pods.run())
            self.spawn(self._submit_all())
            self.spawn(self._stuck.run())
            await self._end
        finally:
            pending = [*self._beside, *self._creating]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Takes tasks; their Jobs are created as soon as there is room."""
        self._submitted.append(tasks)
        self._room_changed.set()

    async def cancel(self) -> None:
        """Deletes the run's objects, waits until no pod is left, and finishes what is unfinished as cancelled.

        Raises:
            KubernetesError: Something refuses to go.
        """
        is_all_there = self._has_owner.is_set() and not self._creating
        await self.send_deletes()
        if not is_all_there:  # what was being made may have come after the delete
            await self._has_owner.wait()
            await asyncio.gather(*self._creating, return_exceptions=True)
            await delete_run(self.api, self.context)
        await self._pod_ends.none_left()
        self._finish_rest()

    async def end(self) -> None:
        """As ``cancel``, for what is unfinished: Jobs with pods that have ended stay until their time is over.

        Raises:
            KubernetesError: Something refuses to go.
        """
        self.is_cancelling = True
        self.api.put_at_stake("The run's unfinished Jobs can't be ended yet; retrying.")
        await self._has_owner.wait()
        await asyncio.gather(*self._creating, return_exceptions=True)
        unfinished = dict(self._jobs)
        ends = await asyncio.gather(*(job.end() for job in unfinished.values()), return_exceptions=True)
        await asyncio.gather(*self._ending)
        for error in ends:
            if error is not None:
                raise error
        await self._pod_ends.none_left(unfinished)
        self._finish_rest()
        if self.context.owner is None:
            await self._pass_ownership()

    def _finish_rest(self) -> None:
        """Finishes what is unfinished as cancelled."""
        cancelled = container_ends.cancelled()
        for job in list(self._jobs.values()):
            for pod in list(job.pods.values()):
                pod.finish(cancelled)
        for spec in (*chain.from_iterable(self._submitted), *self._backlog.clear()):
            self.emit(Finished(spec, cancelled))

    async def send_deletes(self) -> None:
        """Asks for the end of every object of the run, and makes no more Jobs."""
        self.is_cancelling = True
        self.api.put_at_stake("The run's Jobs can't be deleted yet; retrying.")
        await delete_run(self.api, self.context)

    async def close(self) -> None:
        """Ends ``serve``, after seeing to it that the owner goes when the last finished Job goes.

        Tasks that are not finished run on, with their owner, for another driver to take over.
        """
        await self._has_owner.wait()
        await asyncio.gather(*self._ending)
        is_finished = not self._jobs and not self._backlog and not self._submitted
        if self.context.owner is None and is_finished and not self.is_cancelling:
            await self._pass_ownership()
        if not self._end.done():
            self._end.set_result(None)

    def committed(self, specs: Sequence[TaskSpec]) -> dict[TaskName, TaskResult]:
        """The results of tasks whose pod left none, as far as the store has them; called in other threads."""
        return committed_results(self.context.run_store, specs)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something beside; what it raises ends the run."""
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    def spawn_ending(self, work: Coroutine[Any, Any, None]) -> None:
        """Ends a part of a Job beside; the end of the run waits for it."""
        self._ending.add(task := self.spawn(work))
        task.add_done_callback(self._ending.discard)

    async def others_ended(self, job: str, indices: Collection[int]) -> None:
        """Waits, but not for long, until all pods of a Job have ended but those of some indices."""
        await self._pod_ends.others_ended(job, indices)

    async def largest_node(self) -> tuple[str, str] | None:
        """Allocatable cores and memory of the largest node, looked up at most once a minute; None if forbidden."""
        async with self._asking_for_nodes:  # a hundred pods that wait ask at once
            now = asyncio.get_running_loop().time()
            if self._nodes is None or now - self._nodes[0] > _NODES_SECONDS:
                try:
                    nodes, _ = await self.api.list("/api/v1/nodes")
                    self._nodes = (now, nodes)
                except KubernetesError:
                    self._nodes = (float("inf"), None)  # a courtesy that few service accounts are allowed
            return None if self._nodes[1] is None else waiting.largest(self._nodes[1])

    def room_for(self, pod: Manifest) -> int | None:
        """The number of pods like one that the nodes could take if they were empty; None if it is not known."""
        nodes = None if self._nodes is None else self._nodes[1]
        return None if nodes is None else node_fit.room_for(nodes, pod["spec"])

    def _spawned_done(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        self._creating.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not self._end.done():
            self._end.set_exception(error)

    def _pod_finished(self, job: JobOnCluster) -> None:
        self._room_changed.set()
        if job.pods:
            return
        self._jobs.pop(job.name, None)
        if job.is_created and job.stays:
            self._last_finished = job.name

    async def _pass_ownership(self) -> None:
        try:
            await asyncio.wait_for(run_objects.close_ring(self.api, self.objects, self._last_finished), _CLOSE_SECONDS)
        except (KubernetesError, asyncio.TimeoutError):
            # The run is over and reported. Without the ring (the last Job is deleted, patching is not allowed), the
            # empty ConfigMap stays behind, which harms nobody.
            return

    # ------------------------------------------------------------------ Jobs for the tasks that wait

    async def _submit_all(self) -> None:
        clock = asyncio.get_running_loop().time
        while not self.is_cancelling:
            self._room_changed.clear()
            self._take_in(clock())
            again_at = self._fill(clock())
            timeout = None if again_at is None else max(0.0, again_at - clock())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._room_changed.wait(), timeout)

    def _take_in(self, now: float) -> None:
        """Passes on the submitted tasks: to Jobs of an earlier driver that have them, or to the backlog."""
        submitted, self._submitted = self._submitted, []
        for tasks in submitted:
            new = [task for task in tasks if not self._take_over(task)] if self._earlier else tasks
            if new:
                self._backlog.add(new, now)

    def _fill(self, now: float) -> float | None:
        """Uses the room there is, for wider Jobs and new ones; returns when to try again if nothing changes."""
        while room := self._window.room:
            if (job := self._narrow_job()) is not None:
                if not job.is_created:
                    return None
                if room * _ROOM_SHARE < self._window.size:
                    self._little_room_since = self._little_room_since or now
                    if now < (later := self._little_room_since + _LITTLE_ROOM_SECONDS):
                        return later
                job.widen(job.parallelism + room)
                self.spawn(self._patch_parallelism(job))
            elif (tasks := self._backlog.take(now)) is not None:
                self._start(tasks, room)
            else:
                return self._backlog.next_due()
            self._little_room_since = None
        return None

    def _indexed_from(self, step: str) -> int:
        """The number of pods that make an Indexed Job; never reached in a queue, which takes or leaves a Job whole."""
        is_queued = self.context.pods[step].queue is not None
        return sys.maxsize if is_queued else self.context.settings.indexed_from

    def _narrow_job(self) -> JobOnCluster | None:
        """The oldest Job that could have more pods at a time."""
        while self._narrow:
            job = self._narrow[0]
            if job.wants_room:
                return job
            self._narrow.popleft()
        return None

    def _start(self, tasks: TaskBatch, room: int) -> None:
        first = tasks.template
        name = job_name(tasks)
        per_pod = self._per_pod(first.name.step)
        pods = -(-len(tasks) // per_pod)
        job = self._new_job(name, tasks, per_pod, pods if first.nodes > 1 else min(room, pods))
        for position, task in enumerate(tasks):
            job.add(position, task)
        self._creating.add(self.spawn(self._create(job)))

    def _per_pod(self, step: str) -> int:
        return self.context.pods[step].branches_per_pod or 1

    def _new_job(self, name: str, tasks: TaskBatch, per_pod: int, parallelism: int) -> JobOnCluster:
        options = self.context.pods[tasks.template.name.step]
        if tasks.template.memory:
            options = replace(options, memory=tasks.template.memory)
        job = JobOnCluster(self, self._window, name, options, tasks, per_pod, parallelism, self._pod_finished)
        self._jobs[name] = job
        self._narrow.append(job)
        return job

    async def _create(self, job: JobOnCluster) -> None:
        description = task_job(
            self.context, job.name, job.batch, job.options, parallelism=job.parallelism, owner=self._owner
        )
        try:
            if description.service:
                await self._make_service()
            _, job.is_new = await self.api.create(self.objects.jobs, job_manifest(description))
            job.created()
            self._room_changed.set()
            if not job.is_new:
                await self._adopt({job.name: job}, f"{self.objects.selector},{labels.JOB_NAME}={job.name}")
        except K8sflowError as error:
            # stop: where the answer got lost the Job may be there.
            detail = f"{error.summary}\n{error.cause}".strip()
            is_final = isinstance(error, ApiStatusError) and error.is_final
            job.stop_all(diagnosis.job_refused(detail, error.advice, is_final=is_final))

    async def _make_service(self) -> None:
        """Makes the Service by which pods that run together find each other: one for the run."""
        assert self._owner is not None, "Jobs come after their owner"
        flow, run = self.objects.flow, self.objects.run
        manifest = service_manifest(flow=flow, run=run, namespace=self.namespace, owner=self._owner)
        await self.api.create(f"/api/v1/namespaces/{self.namespace}/services", manifest)

    async def _patch_parallelism(self, job: JobOnCluster) -> None:
        try:
            await self.api.patch(job.path, {"spec": {"parallelism": job.parallelism}})
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:  # the Job was deleted, which is found by the lack of pods
                raise

    # ------------------------------------------------------------------ Jobs of an earlier driver

    def _take_over(self, task: TaskSpec) -> bool:
        """Waits for a task in the Job of an earlier driver; False if there is none."""
        found = self._earlier.pop((task.name, task.attempt), None)
        if found is None:
            return False
        job = self._jobs.get(found.name)
        if job is None:
            job = self._new_job(found.name, found.batch, found.per_pod, found.parallelism)
            job.is_new = False
            job.created()
        job.add(found.position, task)
        if not self._taken_over:
            self.spawn(self._adopt_taken_over())
        self._taken_over[job.name] = job
        return True

    async def _adopt_taken_over(self) -> None:
        await asyncio.sleep(_ADOPT_SECONDS)  # more tasks are being submitted: one list for all of them
        jobs, self._taken_over = self._taken_over, {}
        await self._adopt(jobs, self.objects.selector)

    async def _adopt(self, jobs: Mapping[str, JobOnCluster], selector: str) -> None:
        """Takes over the pods of Jobs that were there before, as after the death of an earlier driver."""
        pods, _ = await self.api.list(self.objects.pods, label_selector=selector)
        with_pods = set()
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            if (job := jobs.get(job_of(pod))) is not None:
                job.pod_changed(Change.ADDED, pod)
                with_pods.add(job.name)
        for name, job in jobs.items():
            if job.is_indexed or name not in with_pods:
                await job.look()

    def _pod_changed(self, change: Change, pod: Manifest) -> None:
        self._pod_ends.changed(change, pod)
        if (job := self._jobs.get(job_of(pod))) is not None:
            job.pod_changed(change, pod)
