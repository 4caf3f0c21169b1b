"""One pod of a Job with its tasks: from its creation, through its states and its log, to the tasks' ``Finished``.

Most pods have one task. Tasks that share a pod report their starts and ends in its log; what the log doesn't say, the
termination message says, and else the store.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from k8sflow.errors import AccessError, StorageError
from k8sflow.executors.base import TAIL_LINES, Finished, Note, Output, OutputMissing, Queued, Reached, Started
from k8sflow.executors.kubernetes.following import LAST_LINES
from k8sflow.executors.kubernetes.holder import Holder
from k8sflow.executors.kubernetes.lost_agents import complete_logs
from k8sflow.executors.kubernetes.pod_context import PodContext
from k8sflow.executors.kubernetes.reading import LogReading
from k8sflow.executors.kubernetes.timers import Timers
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import diagnosis, waiting
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
from k8sflow.kubernetes.reflector import Change
from k8sflow.task import container_ends
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.framing import RESULT, OutputStream, Piece, ResultLine, StartLine, decode
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec

MOST_DISRUPTIONS = 6
FAULTY_START_SECONDS = 600.0
_FAULTS = {Outcome.BAD_IMAGE, Outcome.NEVER_STARTED}  # what time alone doesn't heal
_TERMINATION_SLACK_SECONDS = 60.0


@dataclass(eq=False)
class PodOnCluster:
    """The state of the tasks of one index of a Job, fed with the changes of its pods.

    Normally there is one pod. Kubernetes may take it away (a disruption); where it has one task, the Job puts another
    in its place.

    Args:
        run: The run.
        job: The Job.
        index: The index.
        tasks: All tasks of the pod.
        unfinished: Those whose end this driver has yet to report, by id.
    """

    run: PodContext
    job: Holder
    index: int
    tasks: TaskBatch
    unfinished: dict[str, TaskSpec] = field(default_factory=dict)
    created_at: float | None = None
    manifest: Manifest | None = None
    started_pod: str | None = None
    reason: TaskResult | None = None
    _started: set[str] = field(default_factory=set)
    _over: set[str] = field(default_factory=set)
    _times_queued_again: int = 0
    _pending_since: float | None = None
    _tail: deque[bytes] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    _node: str = ""
    _where: str = ""
    _is_followed: bool = False
    _doubt: str = ""
    _lines: int = 0
    _pulling: str = ""
    _log: LogReading | None = None
    _timers: Timers = field(default_factory=Timers)

    @property
    def is_finished(self) -> bool:
        """True if the ends of all of its tasks are reported."""
        return not self.unfinished

    @property
    def is_shared(self) -> bool:
        return len(self.tasks) > 1

    @property
    def options(self) -> PodOptions:
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
        if self.manifest is not None and self.is_waiting:  # it was seen before the answer to the create
            self._explain_waiting(self.manifest)

    def suspended(self, reason: TaskResult | None) -> None:
        """Takes note that its Job starts no pod for now, which counts against no timeout; reports the reason."""
        if self.manifest is not None:
            return  # it has started one in the meantime
        self._pending_since = None
        self._timers.drop("pending")
        if reason is not None:
            self.tell_waiting(reason)

    def changed(self, change: Change, pod: Manifest) -> None:
        """Acts on a change of one of the Job's pods."""
        uid = pod["metadata"]["uid"]
        if self.is_finished or uid in self._over:
            return
        if self.manifest is not None and self.manifest["metadata"]["uid"] != uid:
            return  # a second pod while the first still runs is the Job controller's error; the store takes one result
        if change is Change.DELETED:
            last_known = pod if "status" in pod else self.manifest
            if last_known is not None:
                self._pod_over(last_known, end_of_deleted(last_known))
            return
        self.manifest = pod
        self._note_node(pod)
        if self.started_pod is None:
            self._begin_pending()
        match pod_state(pod, self.options):
            case PodEnd() as end:
                self._pod_over(pod, end)
            case Running(node=node):
                self._runs(pod, node, is_running=True)
            case Waiting():
                self._explain_waiting(pod)
        if is_being_deleted(pod) and not self.is_finished and uid not in self._over:
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            self._timers.set("terminating", grace + _TERMINATION_SLACK_SECONDS, self._lose)

    def tell_waiting(self, reason: TaskResult | None) -> None:
        """Tells the driver why the task waits, where that is news; sets the time after which it is given up."""
        if not self.is_waiting or waiting.is_same(reason, self.reason):
            return
        self.reason = reason
        self._timers.drop("faulty start")
        if reason is None:
            return
        text, why = f"{reason.explained.summary} {reason.explained.detail}".rstrip(), reason.explained
        self.run.emit(Queued(next(iter(self.unfinished.values())), text, why.resolution))
        if why.is_final:
            self.stop(reason)
        elif reason.outcome in _FAULTS and self.options.pending_timeout_seconds is None:
            self._timers.set("faulty start", FAULTY_START_SECONDS, self._give_up)

    def tell_pulling(self, image: str) -> None:
        """Reports that the pod's image is being pulled, which may take long."""
        self.tell_waiting(None)
        if self.is_waiting and self._pulling != image:
            self._pulling = image
            self.run.emit(Queued(next(iter(self.unfinished.values())), f"the image {image} is being pulled."))

    async def end_without_pod(self, end: PodEnd) -> None:
        """Finishes without any pod, which its Job doesn't start any more."""
        if self.manifest is None and not self.is_finished:
            await self._end(end, None, None)

    def finish(self, result: TaskResult) -> None:
        """Emits the one ``Finished`` of each task that has none yet."""
        for task in list(self.unfinished):
            self._finish(task, result)

    def _finish(self, task: str, result: TaskResult) -> None:
        """Emits the ``Finished`` of a task; nothing is emitted for it after that."""
        if (spec := self.unfinished.pop(task, None)) is None:
            return
        result = self.job.explained(result)
        missing = (result.log_lines or 0) - self._lines
        if self._is_followed and self.started_pod is not None and missing > 0:
            self.run.emit(OutputMissing(spec, missing))
        self.run.emit(Finished(spec, result))
        if self.is_finished:
            self._timers.drop()
            if self._log is not None:
                self._log.stop()
            self.run.following.release(self)
            self.job.finished(self, result)

    def stop(self, result: TaskResult) -> None:
        """Finishes with a failure while its pod is still there or to come, and stops that."""
        if not self.is_finished:
            self.job.stop(self)
            self.finish(result)

    def _note_node(self, pod: Manifest) -> None:
        if (node := str(pod["spec"].get("nodeName") or "")) not in {"", self._node}:
            self._node = node
            self._reached("scheduled", node)

    def _reached(self, stage: Literal["created", "scheduled"], where: str = "") -> None:
        for task in self.unfinished.values() if self.run.is_traced else ():
            self.run.emit(Reached(task, stage, time.time(), where))

    def _explain_waiting(self, pod: Manifest) -> None:
        if waiting.is_unschedulable(pod):
            self.run.spawn(self._explain_unschedulable(pod))
        else:
            self._explain(pod, None)

    async def _explain_unschedulable(self, pod: Manifest) -> None:
        node = await self.run.largest_node()
        if self.manifest is pod:  # it has not changed in the meantime
            self._explain(pod, node)

    def _explain(self, pod: Manifest, node: tuple[str, str] | None) -> None:
        found = waiting.why(pod, self.options, node)
        if found is not None or self.reason is not None:
            self.tell_waiting(found)

    def _begin_pending(self) -> None:
        if self._pending_since is None:
            self._pending_since = asyncio.get_running_loop().time()
        if self.options.pending_timeout_seconds is not None and not self.is_finished:
            self._timers.set("pending", self.options.pending_timeout_seconds, self._give_up)

    def _give_up(self) -> None:
        if self.is_waiting and self._pending_since is not None:
            waited = asyncio.get_running_loop().time() - self._pending_since
            self.stop(diagnosis.given_up(self.reason or diagnosis.not_started(), waited))

    def _lose(self) -> None:
        if self.manifest is not None and not self.is_finished and self.manifest["metadata"]["uid"] not in self._over:
            self.stop(end_of_unreachable(self.manifest).result)

    def _runs(self, pod: Manifest, node: str, *, is_running: bool) -> None:
        name = pod["metadata"]["name"]
        if self.started_pod == name:
            return
        self.started_pod = name
        self._lines = 0
        self.reason = None
        self._timers.drop("pending", "faulty start")
        self._where = f"pod {name} on {node}"
        # The log of a shared pod says how its tasks end.
        self._is_followed = self.run.following.take(self) or self.is_shared
        if not self.is_shared:
            self._start(self.tasks.template.name.id)
        self._log = LogReading(self.run, name, None if self._is_followed else LAST_LINES, self._line, self._say)
        if is_running and self._is_followed and self._has_time_for_logs:
            self._log.follow()

    def _say(self, text: str) -> None:
        """Tells the driver something about the pod, in the name of the first of its tasks."""
        for task in list(self.unfinished.values())[:1]:
            self.run.emit(Note(task, text))

    def _line(self, line: bytes) -> None:
        self._lines += not line.startswith(RESULT)
        match decode(line):
            case StartLine(task):
                self._start(task)
            case ResultLine(text, task):
                self._take_result(task, text)
            case Piece(stream, data, task):
                self._output(stream, data, task)

    def _start(self, task: str) -> None:
        if task in self.unfinished and task not in self._started:
            self._started.add(task)
            self.run.emit(Started(self.unfinished[task], self._where, self._is_followed))

    def _output(self, stream: OutputStream, data: bytes, task: str = "") -> None:
        """Passes output on; what the pod writes that is not of one of several tasks is kept as evidence only."""
        name = task or self.tasks.template.name.id
        if name in self.unfinished:
            self._tail.append(data)
            if task or not self.is_shared:
                self.run.emit(Output(self.unfinished[name], stream, data))

    def _take_result(self, task: str, text: str) -> None:
        """Acts on a result in the log, which is here before the kubelet has looked at the container again."""
        try:
            result = TaskResult.from_json(text)
        except ValueError:
            return  # cut off by a kill; the pod's status says more
        if result.outcome is not Outcome.CANCELLED:
            self._finish(task or self.tasks.template.name.id, result)

    def _pod_over(self, pod: Manifest, end: PodEnd) -> None:
        self._over.add(pod["metadata"]["uid"])
        # Of tasks that share a pod the unfinished ones run again; those that run together run again together.
        is_replaced = not self.is_shared and self.tasks.template.nodes == 1
        end = replace(end, is_disruption=end.is_disruption and is_replaced)
        self._timers.drop("terminating")
        if end.ran:
            self._runs(pod, str(pod["spec"].get("nodeName") or "an unknown node"), is_running=False)
        log, self._log = self._log, None
        if log is not None:
            log.stop()
        may_follow = end.is_disruption or self.options.queue is not None
        if may_follow and not self.is_shared:  # from here on the next pod may come
            self.manifest, self.started_pod = None, None
            self._started.clear()
        self.run.spawn(self._end(end, pod, log))

    async def _end(self, end: PodEnd, pod: Manifest | None, log: LogReading | None) -> None:
        """Hands on the rest of the log, decides what the end means, and finishes or waits for the next pod."""
        if log is not None:
            is_failure = end.result.outcome.is_failure or not end.is_reported_by_agent
            await log.finish(reads_rest=is_failure or (self._is_followed and self._has_time_for_logs))
        await self._finish_known(end)
        if self.is_finished:
            return
        if end.ran and not end.is_reported_by_agent and log is not None:
            for task in [found for name, found in self.unfinished.items() if name in self._started]:
                await complete_logs(self.run.api, log.pod_path, self.run.run_store, task)
        if self.is_shared:
            await self._finish_lost(end)
            return
        result = end.result if end.is_reported_by_agent or end.is_disruption else await self._inferred(end)
        is_lost = not end.is_disruption and result.outcome is Outcome.NODE_LOST
        if pod is not None and is_lost and await self._is_queued_again(pod):
            return
        if not end.is_disruption:
            self.finish(result)
        elif self.run.is_cancelling or len(self._over) - self._times_queued_again >= MOST_DISRUPTIONS:
            self.stop(result)
        else:
            why = replace(result.explained, resolution="Kubernetes starts it again in another pod.")
            self.tell_waiting(replace(result, failure=why))

    async def _finish_known(self, end: PodEnd) -> None:
        """Finishes the tasks whose end the agent of a shared pod reported, and those that have committed."""
        shared = {self.tasks[position].name.id: ended for position, ended in end.shared.ends.items()}
        for task, ended in shared.items():
            if not ended.outcome.is_failure:
                self._finish(task, ended)
        if not self.is_finished and not end.is_reported_by_agent:
            await self._finish_committed()
        for task, ended in shared.items():
            self._finish(task, ended)

    async def _finish_lost(self, end: PodEnd) -> None:
        """Finishes the tasks that a shared pod took with it: they run again in another one."""
        if self.options.queue is not None:
            self.job.stop(self)  # a queue manager that has stopped the Job would start it again
        result = await self._inferred(end)
        for task in list(self.unfinished):
            is_bystander = self._started and task not in self._started and result.outcome.is_paid_by_user
            self._finish(task, diagnosis.not_its_turn(result) if is_bystander else result)

    @property
    def _has_time_for_logs(self) -> bool:
        """False where so many pods start that requests for their logs would hold up everything else."""
        return self.is_shared or not self.run.api.is_busy

    async def _is_queued_again(self, pod: Manifest) -> bool:
        if self.manifest is not None and self.manifest["metadata"]["uid"] != pod["metadata"]["uid"]:
            self._times_queued_again += 1
            return True  # the next pod is here
        before, self.manifest, self.started_pod = (self.manifest, self.started_pod), None, None
        if await self.job.is_queued_again(self, pod):
            self._times_queued_again += 1
            return True
        if self.manifest is None:
            self.manifest, self.started_pod = before
        return False

    async def _finish_committed(self) -> None:
        """Finishes the tasks that have committed, although the pod's agent left no result of theirs."""
        try:
            found = await asyncio.to_thread(self.run.committed, list(self.unfinished.values()))
        except (StorageError, AccessError) as error:
            self._doubt = f"Whether it had committed is not known: {error.summary}"
            return
        for name, result in found.items():
            self._finish(name.id, result)

    async def _inferred(self, end: PodEnd) -> TaskResult:
        """The result of a pod whose agent left none: what is inferred from the pod's end, and its last lines."""
        if self.run.is_cancelling:
            return container_ends.cancelled()
        result = end.result
        result = (await self.job.deletion() if result.outcome is Outcome.NODE_LOST else None) or result
        tail = b"".join(self._tail).decode(errors="replace").rstrip()
        return container_ends.with_evidence(result, self._doubt, tail=tail)
