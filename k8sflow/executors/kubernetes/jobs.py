"""The Jobs of one run, in one event loop: their owner, the queue before the API, one watch of pods."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from k8sflow.errors import ApiStatusError, K8sflowError, KubernetesError
from k8sflow.executors.base import Emit
from k8sflow.executors.context import RunContext
from k8sflow.executors.kubernetes.following import Following
from k8sflow.executors.kubernetes.pods import agent_arguments, environment
from k8sflow.executors.kubernetes.task import TaskOnCluster
from k8sflow.kubernetes import diagnosis, labels, names, waiting
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.job import AGENT, DEFAULT_TTL_SECONDS, TaskJob, job_manifest
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.reflector import Change, Reflector, identity_of
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result

# How many Jobs of a run are unfinished at a time, where the user says nothing: enough to keep a cluster busy.
DEFAULT_MAX_JOBS = 100
CANCEL_SECONDS = 60.0
_CLOSE_SECONDS = 10.0
_FIRST_LOOK_SECONDS = 2.0
_LATE_POD_SECONDS = 3.0
_LONGEST_LOOK_SECONDS = 60.0
_SLOW_START_SECONDS = 5.0  # a pod whose image is there has started by then; the status of others can lag by 20 s
_FEW = 5  # of the tasks that hang are looked at one by one, each time
_NODES_SECONDS = 60.0


@dataclass(frozen=True)
class RunObjects:
    """The paths of a run's objects in the API server.

    Args:
        namespace: Their namespace.
        flow: The flow's name.
        run: The run's id.
    """

    namespace: str
    flow: str
    run: str

    @staticmethod
    def of(context: RunContext) -> RunObjects:
        """The objects of an executor's run."""
        return RunObjects(context.settings.kubernetes_namespace, context.record.flow, context.record.run)

    @property
    def selector(self) -> str:
        """The label selector that finds every one of them."""
        return labels.run_selector(self.flow, self.run)

    @property
    def jobs(self) -> str:
        """The path of the run's Jobs."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def pods(self) -> str:
        """The path of the run's pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def owner(self) -> str:
        """The path of the ConfigMap that owns the run's objects, when nothing else does."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{names.owner_name(flow=self.flow, run=self.run)}"


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
        self._environment = environment(context.settings)
        self._has_owner = asyncio.Event()
        self._queue: asyncio.Queue[TaskSpec] = asyncio.Queue()
        self._slots = asyncio.Semaphore(context.max_workers or DEFAULT_MAX_JOBS)
        self._tasks: dict[str, TaskOnCluster] = {}
        self._creating: set[asyncio.Task[None]] = set()
        self._beside: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self._last_finished: str | None = None
        self._asking_for_nodes = asyncio.Lock()
        self._nodes: tuple[float, tuple[str, str] | None] | None = None
        self._pods = Reflector(
            api, self.objects.pods, label_selector=self.objects.selector, on_change=self._pod_changed, keep=identity_of
        )

    async def serve(self) -> None:
        """Runs what is submitted until ``close``.

        Raises:
            Exception: Whatever makes it impossible to go on.
        """
        try:
            if self._owner is None:
                self._owner = await self._make_owner()
            self._has_owner.set()
            self.spawn(self._pods.run())
            self.spawn(self._submit_all())
            self.spawn(self._look_for_stuck())
            await self._end
        finally:
            pending = [*self._beside, *self._creating]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Takes tasks; their Jobs are created as soon as there is room."""
        for task in tasks:
            self._queue.put_nowait(task)

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
        try:
            await asyncio.wait_for(self._no_pods(), CANCEL_SECONDS)
        except asyncio.TimeoutError:
            left = ", ".join(sorted(pod["metadata"]["name"] for pod in self._pods.objects.values()))
            raise KubernetesError(
                f"{CANCEL_SECONDS:.0f} s after their Jobs were deleted there are still pods of the run: {left}.",
                cause="Their nodes may not answer, or a finalizer holds them.",
                advice=f"kubectl get pods -n {self.namespace} -l '{self.objects.selector}'",
            ) from None
        cancelled = diagnosis.cancelled()
        for task in list(self._tasks.values()):
            task.finish(cancelled)
        while not self._queue.empty():
            self._task_of(self._queue.get_nowait()).finish(cancelled)

    async def send_deletes(self) -> None:
        """Asks for the end of every object of the run, and makes no more Jobs."""
        self.is_cancelling = True
        await delete_run(self.api, self.context)

    async def close(self) -> None:
        """Ends ``serve``, after seeing to it that the owner goes when the last finished Job goes.

        Tasks that are not finished run on, with their owner, for another driver to take over.
        """
        await self._has_owner.wait()
        is_finished = not self._tasks and self._queue.empty()
        if self.context.owner is None and is_finished and not self.is_cancelling:
            await self._pass_ownership()
        if not self._end.done():
            self._end.set_result(None)

    def committed(self, spec: TaskSpec) -> TaskResult | None:
        """The result of a task whose pod left none, if the store has it; called in other threads."""
        return committed_result(self.context.run_store, spec)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something beside; what it raises ends the run."""
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    async def largest_node(self) -> tuple[str, str] | None:
        """Allocatable cores and memory of the largest node, looked up at most once a minute; None if forbidden."""
        async with self._asking_for_nodes:  # a hundred pods that wait ask at once
            now = asyncio.get_running_loop().time()
            if self._nodes is None or now - self._nodes[0] > _NODES_SECONDS:
                try:
                    nodes, _ = await self.api.list("/api/v1/nodes")
                    self._nodes = (now, waiting.largest(nodes))
                except KubernetesError:
                    self._nodes = (float("inf"), None)  # a courtesy that few service accounts are allowed
            return self._nodes[1]

    def finished(self, task: TaskOnCluster) -> None:
        """Frees the task's place."""
        if self._tasks.pop(task.job_name, None) is not None:
            self._slots.release()
        if task.created_at is not None and task.job_stays:
            self._last_finished = task.job_name

    def _spawned_done(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        self._creating.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not self._end.done():
            self._end.set_exception(error)

    async def _make_owner(self) -> Manifest:
        """The ownerReference of a ConfigMap that stands for the run: what is deleted with it is all there is."""
        path, _, name = self.objects.owner.rpartition("/")
        config_map, _ = await self.api.create(
            path,
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": name,
                    "labels": labels.run_labels(self.objects.flow, self.objects.run),
                    "annotations": labels.run_annotations(self.objects.flow, self.objects.run),
                },
            },
        )
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": config_map["metadata"]["uid"]}

    async def _pass_ownership(self) -> None:
        """Makes the Job that finished last the owner of the ConfigMap that owns it.

        Finished Jobs stay for people to look at until their time (ttlSecondsAfterFinished) is over. With this ring,
        the end of the last one takes the ConfigMap along, and that whatever is left; nobody has to come back for it.
        """
        try:
            await asyncio.wait_for(self._close_ring(), _CLOSE_SECONDS)
        except (KubernetesError, asyncio.TimeoutError):
            # The run is over and reported. Without the ring (the last Job is deleted, patching is not allowed), the
            # empty ConfigMap stays behind, which harms nobody.
            return

    async def _close_ring(self) -> None:
        if self._last_finished is None:
            await self.api.delete(self.objects.owner)
            return
        job = await self.api.get(f"{self.objects.jobs}/{self._last_finished}")
        reference = {key: job["metadata"][key] for key in ("name", "uid")}
        owners = [{"apiVersion": "batch/v1", "kind": "Job", **reference}]
        await self.api.patch(self.objects.owner, {"metadata": {"ownerReferences": owners}})

    async def _submit_all(self) -> None:
        while True:
            await self._slots.acquire()
            spec = await self._queue.get()
            if self.is_cancelling:
                self._queue.put_nowait(spec)
                return
            task = self._task_of(spec)
            self._tasks[task.job_name] = task
            self._creating.add(self.spawn(self._create(task)))

    def _task_of(self, spec: TaskSpec) -> TaskOnCluster:
        name = names.job_name(
            flow=spec.flow, run=spec.run, step=spec.name.step, task=spec.name.id, attempt=spec.attempt
        )
        return TaskOnCluster(self, spec, self.context.pods[spec.name.step], name)

    async def _create(self, task: TaskOnCluster) -> None:
        settings = self.context.settings
        job = TaskJob(
            name=task.job_name,
            namespace=self.namespace,
            task=task.spec,
            options=task.options,
            runtime_image=settings.kubernetes_runtime_image,
            command=(*AGENT, *agent_arguments(self.context, task.spec)),
            owner=self._owner,
            environment=self._environment,
            credentials_secret=settings.credentials_secret,
            ttl_seconds=DEFAULT_TTL_SECONDS,
        )
        try:
            _, is_new = await self.api.create(self.objects.jobs, job_manifest(job))
            task.created(is_new=is_new)
            if not is_new:
                await self._adopt(task)
        except K8sflowError as error:
            # stop: where the answer got lost the Job may be there.
            detail = f"{error.summary}\n{error.cause}".strip()
            is_final = isinstance(error, ApiStatusError) and error.is_final
            task.stop(diagnosis.job_refused(detail, error.advice, is_final=is_final))

    async def _adopt(self, task: TaskOnCluster) -> None:
        """Takes over the pods of a Job that was there before, as after the death of an earlier driver."""
        selector = f"{self.objects.selector},{labels.JOB_NAME}={task.job_name}"
        pods, _ = await self.api.list(self.objects.pods, label_selector=selector)
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            task.pod_changed(Change.ADDED, pod)
        if not pods:
            await task.look_at_job()

    def _pod_changed(self, change: Change, pod: Manifest) -> None:
        self._changed.set()
        name = (pod["metadata"].get("labels") or {}).get(labels.JOB_NAME, "")
        if (task := self._tasks.get(name)) is not None:
            task.pod_changed(change, pod)

    async def _no_pods(self) -> None:
        await self._pods.is_synced.wait()
        while self._pods.objects:
            self._changed.clear()
            await self._changed.wait()

    async def _look_for_stuck(self) -> None:
        """Reads events for what a pod's status doesn't tell, while there are Jobs without pods and pods that hang.

        It looks seldom, and not at all while tasks start as they should.
        """
        pause = _FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            podless = [task for task in self._older_than(_LATE_POD_SECONDS) if task.pod is None]
            slow = [task for task in self._older_than(_SLOW_START_SECONDS) if task.pod is not None and not task.reason]
            if not podless and not slow:
                pause = _FIRST_LOOK_SECONDS
                continue
            pause = min(_LONGEST_LOOK_SECONDS, pause * 2)
            try:
                await self._explain(podless, slow[:_FEW])
            except KubernetesError:
                continue  # the reflector decides whether the server is unreachable for good

    def _older_than(self, seconds: float) -> list[TaskOnCluster]:
        born_before = asyncio.get_running_loop().time() - seconds
        return [
            t for t in self._tasks.values() if t.is_waiting and t.created_at is not None and t.created_at < born_before
        ]

    async def _explain(self, podless: Sequence[TaskOnCluster], slow: Sequence[TaskOnCluster]) -> None:
        if podless:
            reasons = waiting.without_pod(await self._events("involvedObject.kind=Job,reason=FailedCreate"))
            for task in podless:
                if task.pod is None and task.job_name in reasons:
                    task.tell_waiting(reasons[task.job_name])
            for task in [task for task in podless if task.job_name not in reasons][:_FEW]:
                await task.look_at_job()
        for task in slow:
            if task.pod is not None:
                uid = task.pod["metadata"]["uid"]
                reason = waiting.from_events(await self._events(f"involvedObject.uid={uid}"))
                if reason is not None:
                    task.tell_waiting(reason)

    async def _events(self, selector: str) -> list[Manifest]:
        """Events of the namespace; none where they may not be read, since they are a courtesy."""
        try:
            return (await self.api.list(f"/api/v1/namespaces/{self.namespace}/events", field_selector=selector))[0]
        except ApiStatusError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                return []
            raise


async def delete_run(api: KubernetesApi, context: RunContext) -> None:
    """Asks for the end of every object of the run that this executor makes."""
    objects = RunObjects.of(context)
    await api.delete(objects.jobs, label_selector=objects.selector)
    if context.owner is None:
        await api.delete(objects.owner)
