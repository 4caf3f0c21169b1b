"""The tasks that share a pod: ``python flow.py tasks TASKS --store URL``, which the pod's agent starts.

They run as in a run on a laptop: each is a fork of a process that has imported the flow's libraries, commits by itself,
and has its own log and time limit.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from k8sflow.config import Settings
from k8sflow.errors import K8sflowError
from k8sflow.executors.base import Finished, Note, Output, Queued, Started, TaskEvent
from k8sflow.executors.local import LocalExecutor, WindingDown
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.open_store import store_of
from k8sflow.storage.patience import FIRST_ANSWER_SECONDS, Patience, say
from k8sflow.storage.run_store import RunStore
from k8sflow.task import moments
from k8sflow.task.batch import TaskBatch
from k8sflow.task.conventions import ENTERED, NOTICE_VARIABLE, RESULT_FD_VARIABLE
from k8sflow.task.failure import failure
from k8sflow.task.host.framing import Encoder, OutputStream, encode_result, encode_start
from k8sflow.task.host.preemption import SIGTERM, note_of_sigterm, write_notice
from k8sflow.task.host.shared_agent import LOG_FD_VARIABLE
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.recompile import recompiled
from k8sflow.task.result import TaskResult, failed

_LINGER_SECONDS = 0.25
_TERMINATED_CODE = 128 + signal.SIGTERM
_TERMINATED = failed(Outcome.CANCELLED, "its pod was sent SIGTERM")
_KILL_SECONDS = 1.0  # for the records of tasks that were killed at the end of their time


@dataclass(frozen=True)
class Request:
    """The words of the command line.

    Args:
        tasks: The tasks as ``TaskBatch`` writes them.
        store: Where the run's state is.
        at_a_time: How many tasks run at a time.
        finish_within: How many seconds the tasks may continue after SIGTERM.
    """

    tasks: str
    store: str
    at_a_time: int
    finish_within: float


def run_tasks(definition: FlowDefinition, settings: Settings, request: Request) -> int:
    """Runs the tasks, and returns the exit code."""
    report = int(os.environ.pop(RESULT_FD_VARIABLE))
    os.write(report, ENTERED)
    moments.note("shared")
    try:
        return _run(definition, settings, request, report)
    except K8sflowError as error:  # no task has been started
        _write(report, f"{failure(error).to_termination_message()}\n".encode())
        return 1


def _run(definition: FlowDefinition, settings: Settings, request: Request, report: int) -> int:
    tasks = TaskBatch.from_json(request.tasks)
    patience = Patience(settings.storage_patience, FIRST_ANSWER_SECONDS, say)
    store = store_of(settings, request.store, patience)
    record = RunStore(store, tasks.template.flow, tasks.template.run).read()
    found = recompiled(definition.flow, definition.attributes, record, store, definition.configs)
    log = _SharedLog(tasks, int(os.environ.pop(LOG_FD_VARIABLE)), report)
    policy = record.policies.get(tasks.template.name.step)
    executor = LocalExecutor(
        log.event,
        TaskRunner(found, record, store, compression=settings.artifact_compression),
        request.at_a_time,
        limit_of=lambda _: policy.time_limit if policy is not None else None,
        log_patience=settings.storage_patience,
        log_limit_bytes=settings.log_limit_bytes,
        outlives_sigterm=request.finish_within > 0,
    )
    termination = _Termination(executor, request.finish_within)
    signal.signal(signal.SIGTERM, termination.handle)
    executor.submit(tasks)
    while not log.is_over.wait(_LINGER_SECONDS):
        log.flush()
        if termination.is_over(is_idle=log.is_idle):
            executor.cancel()
            return _TERMINATED_CODE
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    executor.close()
    return 0


class _Termination:
    """SIGTERM: the tasks that run may finish for some seconds, and no other one starts.

    Those run in another pod, and so do the tasks that fail after the signal: it may be why, and it costs no retry.

    Args:
        executor: Runs the tasks.
        seconds: The seconds; 0 where the tasks are to end at once.
    """

    def __init__(self, executor: LocalExecutor, seconds: float) -> None:
        self._executor = executor
        self._seconds = seconds
        self._ends_at: float | None = None

    def handle(self, *_: object) -> None:
        """Handles the signal."""
        if self._ends_at is not None:
            return
        self._ends_at = time.monotonic() + self._seconds
        if self._seconds:
            self._executor.wind_down(WindingDown(self._ends_at, _TERMINATED, note_of_sigterm(self._seconds)))
        # Not before: a task that sees it may fail at once.
        write_notice(Path(os.environ[NOTICE_VARIABLE]), SIGTERM)

    def is_over(self, *, is_idle: bool) -> bool:
        """True when the tasks are to be ended; ``is_idle`` where none runs."""
        if self._ends_at is None:
            return False
        return is_idle or not self._seconds or time.monotonic() >= self._ends_at + _KILL_SECONDS


class _SharedLog:
    """Writes the tasks' events to the container's log, and their starts and ends to the agent.

    Args:
        tasks: The tasks.
        log: The descriptor of the container's log.
        report: The descriptor of the pipe to the agent.
    """

    def __init__(self, tasks: TaskBatch, log: int, report: int) -> None:
        self.is_over = threading.Event()
        self._positions = {task.name.id: position for position, task in enumerate(tasks)}
        self._unfinished = len(tasks)
        self._started: set[str] = set()
        self._running: set[str] = set()
        self._log = log
        self._report = report
        self._encoders: dict[tuple[str, OutputStream], Encoder] = {}
        self._lock = threading.Lock()

    @property
    def is_idle(self) -> bool:
        """True if none of the tasks runs."""
        return not self._running

    def event(self, event: TaskEvent) -> None:
        """Takes an event of the executor, from any of its threads."""
        task = event.task.name.id
        with self._lock:
            match event:
                case Started():
                    self._started.add(task)
                    self._running.add(task)
                    _write(self._report, f"{self._positions[task]}\n".encode())
                    _write(self._log, encode_start(task))
                case Output(_, stream, data):
                    _write(self._log, self._encoder(task, stream).feed(data))
                case Finished(_, result):
                    _write(self._log, b"".join(self._rest_of(task)))
                    if not self._is_for_others(task, result):
                        message = result.to_termination_message()
                        _write(self._log, encode_result(message, task))
                        _write(self._report, f"{self._positions[task]} {message}\n".encode())
                    self._running.discard(task)
                    self._unfinished -= 1
                case Queued(_, text) | Note(_, text) if text:
                    _write(self._log, self._encoder(task, "stderr").feed(f"[k8sflow] {text}\n".encode()))
        if not self._unfinished:
            self.is_over.set()

    def _is_for_others(self, task: str, result: TaskResult) -> bool:
        """True if the agent, or the driver, knows better how a task ended.

        The driver learns from the pod's status why it ended. The failure of a task that had not started is that of
        one that had: a step killed the process that starts them all.
        """
        is_bystander = bool(self._started) and task not in self._started and result.outcome.is_paid_by_user
        return is_bystander or result.outcome is Outcome.CANCELLED

    def flush(self) -> None:
        """Writes lines that have not ended, and linger."""
        with self._lock:
            for encoder in self._encoders.values():
                _write(self._log, encoder.flush())

    def _encoder(self, task: str, stream: OutputStream) -> Encoder:
        if (task, stream) not in self._encoders:
            self._encoders[task, stream] = Encoder(stream, task)
        return self._encoders[task, stream]

    def _rest_of(self, task: str) -> list[bytes]:
        streams_of: tuple[OutputStream, ...] = ("stdout", "stderr")
        found = [self._encoders.pop((task, stream), None) for stream in streams_of]
        return [encoder.flush() for encoder in found if encoder is not None]


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
