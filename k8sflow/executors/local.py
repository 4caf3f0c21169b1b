"""Tasks as processes on this machine."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import queue
import resource
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from k8sflow.errors import K8sflowError, StorageError
from k8sflow.executors.base import Emit, Finished, Output, Queued, Started
from k8sflow.executors.fork_server import RunToServe
from k8sflow.executors.servers import ForkServers
from k8sflow.executors.task_logs import TaskLogs, open_logs
from k8sflow.executors.zygote import Exit, ServerDied, Zygote, no_process
from k8sflow.flow.decorators.environment import variables_of
from k8sflow.flow.decorators.policy import TimeLimit
from k8sflow.parallel.limits import out_of_memory_kills
from k8sflow.storage.run_store import RunStore
from k8sflow.task.death import death, last_word, timed_out
from k8sflow.task.host.oom import out_of_memory
from k8sflow.task.host.pipes import waiting_bytes
from k8sflow.task.inside.runner import TaskRunner
from k8sflow.task.outcome import Diagnosis, Outcome
from k8sflow.task.protocol import TIME_IS_OVER
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result, write_outcome

_READ_BYTES = 1 << 16
_TERM_SECONDS = 3.0
_FILES_PER_TASK = 5  # its pipes, and two logs
_SPARE_FILES = 64
_LEAST_SPARE_FILES = 16  # where there can't be as many
Stream = Literal["stdout", "stderr", "result"]
_STREAMS: tuple[Stream, ...] = ("stdout", "stderr", "result")


@dataclass
class _Running:
    """A task's process, and what it has said so far."""

    task: TaskSpec
    pid: int
    pipes: dict[Stream, int]
    logs: TaskLogs
    server: Zygote
    result: bytearray = field(default_factory=bytearray)
    limit: TimeLimit | None = None
    deadline: float = math.inf  # when it is told to end, and after that when it is killed
    ended_for: Diagnosis | None = None  # why it is told to end
    kills_before: int = 0  # because memory ran out, in the cgroup that it shares with other processes


class LocalExecutor:
    """Runs each task as a process of its own, up to ``max_workers`` at a time.

    Tasks that have to run at the same time (``num_parallel``) are started together.

    One thread sleeps in one ``select`` over the pipes of all running tasks.

    Args:
        emit: Where events go.
        runner: The run.
        max_workers: How many processes at a time.
        limit_of: How long an execution of a step's task may take; None for any time.
        lock: A file descriptor that the zygote keeps open until the last task has ended, and no task.
        log_patience: How many seconds the rest of a task's output waits for a bucket that can't be reached; the task
            ends after that.
    """

    def __init__(
        self,
        emit: Emit,
        runner: TaskRunner,
        max_workers: int,
        *,
        limit_of: Callable[[str], TimeLimit | None] = lambda _: None,
        lock: int | None = None,
        log_patience: float = 30.0,
    ) -> None:
        self._emit = emit
        self._log_patience = log_patience
        self._finishing: list[threading.Thread] = []
        self._limit_of = limit_of
        self._run_store: RunStore = runner.run_store
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        served = RunToServe(runner.definition.flow, runner.record, runner.store, runner.place, files)
        self._file = runner.record.file
        self._said: set[str] = set()
        self._submitted: queue.SimpleQueue[Sequence[TaskSpec] | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[Sequence[TaskSpec], int]] = deque()
        self._running: dict[int, _Running] = {}
        self._kills_told = 0
        self._selector = selectors.DefaultSelector()
        self._wanted_workers = max_workers
        self._max_workers = _raise_file_limit(max_workers)
        self._wakeup, self._woken = socket.socketpair()
        self._wakeup.setblocking(False)
        self._woken.settimeout(None)
        self._cancelled = threading.Event()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._servers = ForkServers(served, lock, partial(_variables, runner), self._selector)
        self._servers.of(runner.definition.graph.start)
        self._thread = threading.Thread(target=self._loop, name="k8sflow-local", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._servers.close(spare_orphans=False)
            raise no_process("the run", error) from error

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Takes tasks; they start in this order as workers become free."""
        self._submitted.put(tasks)
        self._wake()

    def cancel(self) -> None:
        """Ends every process of every task: SIGTERM first, SIGKILL to what is left after three seconds."""
        self._cancelled.set()
        self._servers.kill_unready()
        self.close()

    def abandon(self) -> None:
        """Nothing: the zygote ends the tasks when this process is gone."""

    def close(self) -> None:
        """Ends the thread and the zygote."""
        if self._thread.is_alive():
            self._submitted.put(None)
            self._wake()
        self._thread.join()
        for thread in self._finishing:
            thread.join()
        self._servers.close(spare_orphans=not self._cancelled.is_set())
        self._wakeup.close()
        self._woken.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full of wake-ups that the thread has yet to see
            self._wakeup.send(b"\0")

    # ------------------------------------------------------------------ the thread

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001  a thread that ended without a word would leave the driver waiting
            self._give_up(_told(error))
        finally:
            if self._cancelled.is_set():
                self._terminate()
            self._selector.close()

    def _give_up(self, diagnosis: Diagnosis) -> None:
        """Ends every task, those still to come too: the zygote is gone, or the log can't be written."""
        self._signal(signal.SIGKILL)
        result = TaskResult(diagnosis.category, diagnosis=diagnosis)
        for running in list(self._running.values()):
            with contextlib.suppress(K8sflowError):
                result_of_task = committed_result(self._run_store, running.task) or result
                self._finish(running, result_of_task)
        for tasks, first in self._waiting:
            for task in tasks[first:]:
                self._emit(Finished(task, result))
        while (submitted := self._submitted.get()) is not None:
            for task in submitted:
                self._emit(Finished(task, result))

    def _step(self) -> bool:
        if not self._start_waiting():
            return False
        ending = {server for server in self._servers.all() if server.has_exits}
        ready = [] if ending else [key for key, _ in self._selector.select(self._end_overdue())]
        for key in ready:
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            elif isinstance(key.data, Zygote):
                ending.add(key.data)
            else:
                running, stream = key.data
                self._read(running, stream)
        for server in ending:
            for exit_ in self._exits(server):
                self._ended(exit_)
        return True

    def _exits(self, server: Zygote) -> Sequence[Exit]:
        try:
            return server.exits()
        except ServerDied as error:
            if self._cancelled.is_set():
                raise
            self._servers.drop(server, error)
            return ()

    def _end_overdue(self) -> float | None:
        """Ends the tasks whose time is over, with all that they have started; seconds until the next one's is."""
        now = time.monotonic()
        for running in self._running.values():
            if running.deadline > now:
                continue
            if running.ended_for is not None or running.limit is None:
                self._end(running, signal.SIGKILL, running.ended_for or timed_out(0.0))
            else:
                self._interrupt(running, running.limit)
        first = min((running.deadline for running in self._running.values()), default=math.inf)
        return None if first == math.inf else max(0.0, first - now)

    def _interrupt(self, running: _Running, limit: TimeLimit) -> None:
        """Lets the task's own process raise TimeoutException in its step; what it has started is left to the step."""
        if not limit.grace_seconds:
            self._end(running, signal.SIGKILL, timed_out(limit.seconds))
            return
        running.ended_for = timed_out(limit.seconds)
        running.deadline = time.monotonic() + limit.grace_seconds
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(running.pid, TIME_IS_OVER)

    def _end(self, running: _Running, number: signal.Signals, reason: Diagnosis) -> None:
        running.ended_for = reason
        running.deadline = time.monotonic() + _TERM_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, number)

    def _end_others(self, failed: TaskSpec) -> None:
        """Ends those that run together with a task that has failed: they would wait for it for ever."""
        reason = Diagnosis(
            Outcome.CANCELLED, f"it was ended, since {failed.name}, which it has to run together with, has failed"
        )
        for running in self._running.values():
            if running.task.first == failed.first and running.ended_for is None:
                self._end(running, signal.SIGTERM, reason)

    def _start_waiting(self) -> bool:
        """Starts what can start; False when the executor is to end."""
        with contextlib.suppress(queue.Empty):
            while True:
                tasks = self._submitted.get_nowait()
                if tasks is None:
                    return False
                self._waiting.append((tasks, 0))
                self._make_room_for(tasks)
        while self._waiting and self._has_room(*self._waiting[0]):
            tasks, first = self._waiting[0]
            last = len(tasks) if tasks[first].nodes > 1 else first + 1
            for index in range(first, last):
                self._start(tasks[index])
                self._waiting[0] = (tasks, index + 1)  # only now: a task that can't be started is still to be ended
            if last == len(tasks):
                self._waiting.popleft()
        return True

    def _has_room(self, tasks: Sequence[TaskSpec], first: int) -> bool:
        """Whether a task may start; those that know each other start together, more than max_workers of them alone."""
        count = len(tasks) - first if tasks[first].nodes > 1 else 1
        return len(self._running) + count <= max(count if count > 1 else 0, self._max_workers)

    def _make_room_for(self, tasks: Sequence[TaskSpec]) -> None:
        """Prepares for tasks that know each other and are more than max_workers; tells what tasks wait for."""
        if tasks[0].nodes > 1 and len(tasks) > self._max_workers:
            _raise_file_limit(len(tasks))
            reason = (
                f"its {len(tasks)} processes run at the same time, which is more than --max-workers "
                f"{self._max_workers}: they start when nothing else runs."
            )
            self._emit(Queued(tasks[0], reason))
        elif len(tasks) > self._max_workers < self._wanted_workers:
            reason = (
                f"{self._max_workers} tasks run at a time, not {self._wanted_workers}: there can't be more open files."
            )
            self._emit(Queued(tasks[0], reason, "Raise the hard limit (ulimit -Hn), or lower --max-workers."))

    def _start(self, task: TaskSpec) -> None:
        logs = open_logs(self._run_store, task, self._patience)
        kills_before = out_of_memory_kills()
        pipes = {stream: os.pipe() for stream in _STREAMS}
        try:
            server, pid = self._spawn(task, {stream: ends[1] for stream, ends in pipes.items()})
        finally:
            for _, write_end in pipes.values():
                os.close(write_end)
        running = _Running(task, pid, {stream: read_end for stream, (read_end, _) in pipes.items()}, logs, server)
        running.kills_before = kills_before
        running.limit = self._limit_of(task.name.step)
        if running.limit is not None:
            running.deadline = time.monotonic() + running.limit.seconds
        self._running[pid] = running
        for stream, fd in running.pipes.items():
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ, (running, stream))
        self._say_what_is_left_out(task, server)
        self._emit(Started(task, f"pid {pid}"))

    def _spawn(self, task: TaskSpec, ends: Mapping[Stream, int]) -> tuple[Zygote, int]:
        """Starts a task's process; its server and its pid."""
        server = self._servers.of(task.name.step)
        try:
            return server, server.spawn(task.to_json(), *(ends[stream] for stream in _STREAMS))
        except ServerDied as error:
            if self._cancelled.is_set():
                raise
            self._servers.drop(server, error)
            return self._spawn(task, ends)

    def _say_what_is_left_out(self, task: TaskSpec, server: Zygote) -> None:
        """Says once why tasks take longer to start than they might."""
        if self._servers.notice and self._servers.notice not in self._said:
            self._said.add(self._servers.notice)
            self._emit(Queued(task, self._servers.notice))
        for library, why in (server.left_out or {}).items():
            if library not in self._said:
                self._said.add(library)
                self._emit(Queued(task, f"each task imports {library} by itself: {why}."))

    def _read(self, running: _Running, stream: Stream, most: int = _READ_BYTES) -> int:
        """Takes what is in a pipe; how many bytes that was."""
        fd = running.pipes.get(stream)
        if fd is None:
            return 0
        try:
            data = os.read(fd, most)
        except BlockingIOError:
            return 0
        if not data:
            self._close_pipe(running, stream)
            return 0
        if stream == "result":
            running.result += data
        else:
            running.logs.add(stream, data)
            self._emit(Output(running.task, stream, data))
        return len(data)

    def _drain(self, running: _Running) -> None:
        """Takes what is in the pipes at this moment; a child that the task left may write to them for ever."""
        for stream, fd in list(running.pipes.items()):
            left = waiting_bytes(fd)
            while left > 0 and (taken := self._read(running, stream, left)):
                left -= taken

    def _close_pipe(self, running: _Running, stream: Stream) -> None:
        fd = running.pipes.pop(stream)
        self._selector.unregister(fd)
        os.close(fd)

    def _ended(self, exit_: Exit) -> None:
        """A task's process is gone: what is in its pipes is the rest; a child that it left may hold them open."""
        running = self._running[exit_.pid]
        self._drain(running)
        said = last_word(running.result, exit_.status) or committed_result(self._run_store, running.task)
        result = said
        was_cancelled = running.ended_for is not None and running.ended_for.category is Outcome.CANCELLED
        if result is None or (was_cancelled and result.outcome is Outcome.USER_ERROR):
            result = self._inferred(running, exit_.status)
        result = self._blamed_on_memory(running, exit_.status, result)
        if running.ended_for is not None or result.outcome.is_failure:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGKILL)  # what the task left in its group
        if result is not said:
            write_outcome(self._run_store, running.task, result)
        self._finish(running, result)
        if running.task.nodes > 1 and result.outcome.is_failure:
            self._end_others(running.task)

    def _inferred(self, running: _Running, status: int) -> TaskResult:
        """The result of a task that reported none."""
        importing = "" if running.result else self._file
        diagnosis = running.ended_for or death(status, importing)
        return TaskResult(diagnosis.category, diagnosis=diagnosis)

    def _blamed_on_memory(self, running: _Running, status: int, result: TaskResult) -> TaskResult:
        """The result; that of a failure which the kernel's count of kills for want of memory explains is another one.

        A kill since the task's start explains that it was killed itself. Of a child's, which made the task fail, one
        can't be sure: so it counts only where it has explained nothing else.
        """
        if result.outcome is not Outcome.USER_ERROR:
            return result
        was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        known = running.kills_before if was_killed else max(running.kills_before, self._kills_told)
        if (count := out_of_memory_kills()) <= known:
            return result
        self._kills_told = count
        return TaskResult(Outcome.OUT_OF_MEMORY, diagnosis=out_of_memory(result.diagnosis, in_pod=False))

    def _finish(self, running: _Running, result: TaskResult) -> None:
        for stream in list(running.pipes):
            self._close_pipe(running, stream)
        del self._running[running.pid]

        def report(loss: str) -> None:
            self._emit(Finished(running.task, replace(result, note=loss) if loss else result))

        self._finish_logs(running, report)

    def _finish_logs(self, running: _Running, done: Callable[[str], None]) -> None:
        """Stores the rest of a task's output, while other tasks start and end."""
        thread = running.logs.finish(done)
        self._finishing = [each for each in self._finishing if each.is_alive()]
        if thread is not None:
            self._finishing.append(thread)

    def _patience(self) -> float:
        return _TERM_SECONDS if self._cancelled.is_set() else self._log_patience

    def _terminate(self) -> None:
        """Ends the groups of all running tasks."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _TERM_SECONDS
        for server in self._servers.all():
            server.socket.settimeout(_TERM_SECONDS)
            with contextlib.suppress(K8sflowError, TimeoutError):
                while time.monotonic() < deadline and any(found.server is server for found in self._running.values()):
                    for exit_ in server.exits():
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.killpg(exit_.pid, signal.SIGKILL)  # what the task left in its group
                        running = self._running.pop(exit_.pid)
                        self._drain(running)
                        self._finish_logs(running, lambda _: None)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)


def _variables(runner: TaskRunner, step: str) -> dict[str, str]:
    """What ``@environment`` sets for a step; nothing for an exit hook, which belongs to none."""
    if step not in runner.definition.graph.nodes:
        return {}
    definition = runner.definition
    return variables_of(definition.decorations_of(step, definition.added(runner.record.decorators)))


def _told(error: Exception) -> Diagnosis:
    outcome = Outcome.STORAGE_ERROR if isinstance(error, StorageError) else Outcome.USER_ERROR
    if isinstance(error, K8sflowError):
        return Diagnosis(outcome, error.summary, error.cause, error.advice, is_final=True)  # this executor has ended
    advice = ""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        advice = "Raise the limit of open files (ulimit -n), or lower --max-workers."
    return Diagnosis(outcome, f"tasks can't be run on this machine: {type(error).__name__}: {error}", "", advice)


def _raise_file_limit(max_workers: int) -> int:
    """Lets this process hold the files of all workers; of how many at most, as far as the system allows.

    Tasks keep the limit that they had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/dev/fd").iterdir()))
    needed = used + 2 * len(_STREAMS) * max_workers + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    if hard == resource.RLIM_INFINITY:
        return max_workers
    return max(1, min(max_workers, (hard - used - _LEAST_SPARE_FILES) // _FILES_PER_TASK))
