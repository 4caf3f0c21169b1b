"""One task on the cluster: from its pod's creation, through its states and its log, to its one ``Finished``."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from k8sflow.errors import KubernetesError, StorageError
from k8sflow.executors.base import Emit, Finished, Note, Output, OutputMissing, Queued, Reached, Started
from k8sflow.executors.kubernetes.following import LAST_LINES, Following
from k8sflow.executors.kubernetes.lost_agents import complete_logs
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import diagnosis, waiting
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.logs import PodLog
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.outcome import (
    PodEnd,
    Running,
    Waiting,
    end_of_deleted,
    end_of_unreachable,
    is_being_deleted,
    pod_state,
)
from k8sflow.kubernetes.pod import CONTAINER
from k8sflow.kubernetes.reflector import Change
from k8sflow.outages import Notice
from k8sflow.storage.run_store import RunStore
from k8sflow.task.host.framing import RESULT, ResultLine, decode
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec

MOST_DISRUPTIONS = 6
FAULTY_START_SECONDS = 600.0
_FAULTS = {Outcome.BAD_IMAGE, Outcome.NEVER_STARTED}  # what time alone doesn't heal
_DRAIN_SECONDS = 2.0
_TERMINATION_SLACK_SECONDS = 60.0
_TAIL_LINES = 100


class Surroundings(Protocol):
    """The part of a run that its tasks need."""

    api: KubernetesApi
    namespace: str
    emit: Emit
    is_cancelling: bool
    is_traced: bool
    following: Following
    run_store: RunStore

    def committed(self, spec: TaskSpec) -> TaskResult | None:
        """The result of a task whose pod left none, if the store has it; called in other threads."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something beside; what it raises ends the run."""

    async def largest_node(self) -> tuple[str, str] | None:
        """Allocatable cores and memory of the largest node, where that may be known."""


class Holder(Protocol):
    """The Job that has a task."""

    options: PodOptions
    is_new: bool

    def finished(self, task: TaskOnCluster, result: TaskResult) -> None:
        """Takes note that the task is over."""

    def stop(self, task: TaskOnCluster) -> None:
        """Ends its pod, now or when it comes."""

    async def is_queued_again(self, task: TaskOnCluster, pod: Manifest) -> bool:
        """True if a queue manager has stopped the Job, and with it a pod, so that the task waits for its next turn."""

    async def is_deleted(self) -> bool:
        """True if the Job was deleted."""


@dataclass(eq=False)
class TaskOnCluster:
    """The state of one task, fed with the changes of its pods.

    Normally there is one pod. Kubernetes may take it away (a disruption), then the Job puts another in its place.
    """

    run: Surroundings
    job: Holder
    spec: TaskSpec
    index: int
    created_at: float | None = None
    pod: Manifest | None = None
    is_finished: bool = False
    started_pod: str | None = None
    reason: TaskResult | None = None
    _node: str = ""
    _over: set[str] = field(default_factory=set)
    _times_queued_again: int = 0
    _pending_since: float | None = None
    _tail: deque[bytes] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    _lines: int = 0
    _pulling: str = ""
    _log: PodLog | None = None
    _last_lines: int | None = None
    _follower: asyncio.Task[None] | None = None
    _timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)

    @property
    def options(self) -> PodOptions:
        """The requests of its step."""
        return self.job.options

    @property
    def is_waiting(self) -> bool:
        """True if its pod has to come, and no container of it has started."""
        return not self.is_finished and self.created_at is not None and self.started_pod is None

    def created(self) -> None:
        """Takes note that the Job exists, and is to start its pod now."""
        self.created_at = asyncio.get_running_loop().time()
        if self.job.is_new:
            self._reached("created")
        if self.options.queue is None:  # a queue's time doesn't count: the pod's first sign is the end of it
            self._begin_pending()
        if self.pod is not None and self.is_waiting:  # it was seen before the answer to the create
            self.run.spawn(self._explain_waiting(self.pod))

    def suspended(self, reason: TaskResult | None) -> None:
        """Takes note that its Job starts no pod for now, which counts against no timeout; reports the reason."""
        if self.pod is not None:
            return  # it has started one in the meantime
        self._pending_since = None
        self._drop_timer("pending")
        if reason is not None:
            self.tell_waiting(reason)

    def pod_changed(self, change: Change, pod: Manifest) -> None:
        """Acts on a change of one of the Job's pods."""
        uid = pod["metadata"]["uid"]
        if self.is_finished or uid in self._over:
            return
        if self.pod is not None and self.pod["metadata"]["uid"] != uid:
            return  # a second pod while the first still runs is the Job controller's error; the store takes one result
        if change is Change.DELETED:
            last_known = pod if "status" in pod else self.pod
            if last_known is not None:
                self._pod_over(last_known, end_of_deleted(last_known))
            return
        self.pod = pod
        self._note_node(pod)
        if self.started_pod is None:
            self._begin_pending()
        match pod_state(pod, self.options):
            case PodEnd() as end:
                self._pod_over(pod, end)
            case Running(node=node):
                self._runs(pod, node)
            case Waiting():
                self.run.spawn(self._explain_waiting(pod))
        if is_being_deleted(pod) and not self.is_finished and uid not in self._over:
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            self._set_timer("terminating", grace + _TERMINATION_SLACK_SECONDS, self._lose)

    def tell_waiting(self, reason: TaskResult | None) -> None:
        """Tells the driver why the task waits, where that is news; sets the time after which it is given up."""
        if not self.is_waiting or waiting.is_same(reason, self.reason):
            return
        self.reason = reason
        self._drop_timer("faulty start")
        if reason is None:
            return
        why = reason.explained
        detail = f" {why.detail}" if why.detail else ""
        self.run.emit(Queued(self.spec, why.summary + detail, why.resolution))
        if why.is_final:
            self.stop(reason)
        elif reason.outcome in _FAULTS and self.options.pending_timeout_seconds is None:
            self._set_timer("faulty start", FAULTY_START_SECONDS, self._give_up)

    def tell_pulling(self, image: str) -> None:
        """Reports that the pod's image is being pulled, which may take long."""
        self.tell_waiting(None)
        if self.is_waiting and self._pulling != image:
            self._pulling = image
            self.run.emit(Queued(self.spec, f"the image {image} is being pulled."))

    async def end_without_pod(self, end: PodEnd) -> None:
        """Finishes without any pod, which its Job doesn't start any more."""
        if self.pod is None and not self.is_finished:
            await self._end(end, None, None, None)

    def finish(self, result: TaskResult) -> None:
        """Emits the one ``Finished``; nothing is emitted for the task after it."""
        if self.is_finished:
            return
        self.is_finished = True
        for name in list(self._timers):
            self._drop_timer(name)
        if self._follower is not None:
            self._follower.cancel()
        self.run.following.release(self)
        if self._last_lines is None and self.started_pod is not None and (result.log_lines or 0) > self._lines:
            self.run.emit(OutputMissing(self.spec, (result.log_lines or 0) - self._lines))
        self.run.emit(Finished(self.spec, result))
        self.job.finished(self, result)

    def stop(self, result: TaskResult) -> None:
        """Finishes with a failure while its pod is still there or to come, and stops that."""
        if not self.is_finished:
            self.job.stop(self)
            self.finish(result)

    def _note_node(self, pod: Manifest) -> None:
        node = str(pod["spec"].get("nodeName") or "")
        if node and node != self._node:
            self._node = node
            self._reached("scheduled", node)

    def _reached(self, stage: Literal["created", "scheduled"], where: str = "") -> None:
        if self.run.is_traced:
            self.run.emit(Reached(self.spec, stage, time.time(), where))

    async def _explain_waiting(self, pod: Manifest) -> None:
        node = await self.run.largest_node() if waiting.is_unschedulable(pod) else None
        if self.pod is not pod:
            return  # it has changed in the meantime
        found = waiting.why(pod, self.options, node)
        if found is not None or self.reason is not None:
            self.tell_waiting(found)

    def _begin_pending(self) -> None:
        if self._pending_since is None:
            self._pending_since = asyncio.get_running_loop().time()
        if self.options.pending_timeout_seconds is not None and not self.is_finished:
            self._set_timer("pending", self.options.pending_timeout_seconds, self._give_up)

    def _give_up(self) -> None:
        if self.is_waiting and self._pending_since is not None:
            waited = asyncio.get_running_loop().time() - self._pending_since
            self.stop(diagnosis.given_up(self.reason or diagnosis.not_started(), waited))

    def _lose(self) -> None:
        if self.pod is not None and not self.is_finished and self.pod["metadata"]["uid"] not in self._over:
            self.stop(end_of_unreachable(self.pod).result)

    def _runs(self, pod: Manifest, node: str) -> None:
        name = pod["metadata"]["name"]
        if self.started_pod == name:
            return
        self.started_pod = name
        self._lines = 0
        self.reason = None
        self._drop_timer("pending")
        self._drop_timer("faulty start")
        is_followed = self.run.following.take(self)
        self.run.emit(Started(self.spec, f"pod {name} on {node}", is_followed))
        path = f"/api/v1/namespaces/{self.run.namespace}/pods/{name}"
        self._log = PodLog(self.run.api, path, container=CONTAINER, on_line=self._line, report=self._note)
        self._last_lines = None if is_followed else LAST_LINES
        if is_followed and "running" in _task_container_state(pod):
            self._follower = self.run.spawn(self._follow(self._log))

    async def _follow(self, log: PodLog) -> None:
        try:
            await log.follow()
        except KubernetesError as error:
            self.run.emit(Note(self.spec, f"its output can't be shown here: {error.summary} {error.cause}"))

    def _note(self, notice: Notice) -> None:
        if not self.is_finished:
            self.run.emit(Note(self.spec, notice.text))

    def _line(self, line: bytes) -> None:
        self._lines += not line.startswith(RESULT)
        match decode(line):
            case ResultLine(text=text):
                self._take_result(text)
            case piece:
                self._output(piece.stream, piece.data)

    def _output(self, stream: Any, data: bytes) -> None:
        if not self.is_finished:
            self._tail.append(data)
            self.run.emit(Output(self.spec, stream, data))

    def _take_result(self, text: str) -> None:
        """Acts on the agent's last line, which is here before the kubelet has looked at the container again."""
        try:
            result = TaskResult.from_json(text)
        except ValueError:
            return  # cut off by a kill; the pod's status says more
        if result.outcome is not Outcome.CANCELLED:
            self.finish(result)

    def _pod_over(self, pod: Manifest, end: PodEnd) -> None:
        self._over.add(pod["metadata"]["uid"])
        self._drop_timer("terminating")
        if end.ran:
            self._runs(pod, str(pod["spec"].get("nodeName") or "an unknown node"))
        log, follower, self._log, self._follower = self._log, self._follower, None, None
        if follower is not None:
            follower.cancel()
        if end.is_disruption or self.options.queue is not None:  # from here on the next pod may come
            self.pod, self.started_pod = None, None
        self.run.spawn(self._end(end, pod, log, follower))

    async def _end(
        self, end: PodEnd, pod: Manifest | None, log: PodLog | None, follower: asyncio.Task[None] | None
    ) -> None:
        """Hands on the rest of the log, decides what the end means, and finishes or waits for the next pod."""
        if follower is not None:
            await asyncio.wait({follower})
        if log is not None and not (
            self._last_lines and end.is_reported_by_agent and not end.result.outcome.is_failure
        ):
            await self._drain(log)
        if self.is_finished:
            return
        if end.ran and not end.is_reported_by_agent and log is not None:
            await complete_logs(self.run.api, log.pod_path, self.run.run_store, self.spec)
        result = end.result if end.is_reported_by_agent else await self._without_word(end)
        is_replaced = end.is_disruption and self.spec.nodes == 1  # those that run together run again together
        if pod is not None and _may_be_queued_again(end, result) and await self._is_queued_again(pod):
            return
        if not (is_replaced and result is end.result):
            self.finish(result)
            return
        if self.run.is_cancelling or len(self._over) - self._times_queued_again >= MOST_DISRUPTIONS:
            self.stop(result)
        else:
            why = replace(result.explained, resolution="Kubernetes starts it again in another pod.")
            self.tell_waiting(replace(result, failure=why))

    async def _is_queued_again(self, pod: Manifest) -> bool:
        if self.pod is not None and self.pod["metadata"]["uid"] != pod["metadata"]["uid"]:
            self._times_queued_again += 1
            return True  # the next pod is here
        before, self.pod, self.started_pod = (self.pod, self.started_pod), None, None
        if await self.job.is_queued_again(self, pod):
            self._times_queued_again += 1
            return True
        if self.pod is None:
            self.pod, self.started_pod = before
        return False

    async def _drain(self, log: PodLog) -> None:
        try:
            await asyncio.wait_for(log.drain(self._last_lines), _DRAIN_SECONDS)
        except (KubernetesError, asyncio.TimeoutError):
            # The pod or its node is lost, and the rest of its log with it; the agent has uploaded what it could.
            return

    async def _without_word(self, end: PodEnd) -> TaskResult:
        """The result of a pod whose agent left none: the store's, if the task has committed, else what is inferred."""
        note = ""
        try:
            found = await asyncio.to_thread(self.run.committed, self.spec)
        except StorageError as error:
            found, note = None, f"Whether it had committed is not known: {error.summary}"
        if found is not None:
            return found
        if end.is_disruption:
            return end.result
        if self.run.is_cancelling:
            return diagnosis.cancelled()
        result = end.result
        if result.outcome is Outcome.NODE_LOST and await self.job.is_deleted():
            result = diagnosis.job_deleted()
        tail = b"".join(self._tail).decode(errors="replace").rstrip()
        shown = not tail or tail in result.explained.detail
        parts = (result.explained.detail, note, "" if shown else f"Its last lines:\n{tail}")
        detail = "\n".join(part for part in parts if part)
        return replace(result, failure=replace(result.explained, detail=detail))

    def _set_timer(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        if name not in self._timers:
            self._timers[name] = asyncio.get_running_loop().call_later(seconds, then)

    def _drop_timer(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()


def _may_be_queued_again(end: PodEnd, result: TaskResult) -> bool:
    return not end.is_disruption and result.outcome is Outcome.NODE_LOST


def _task_container_state(pod: Manifest) -> dict[str, Any]:
    statuses = pod["status"].get("containerStatuses") or ()
    return next((status.get("state") or {} for status in statuses if status["name"] == CONTAINER), {})
