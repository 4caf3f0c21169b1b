"""Tasks as processes on this machine."""

from __future__ import annotations

import contextlib
import errno
import math
import queue
import resource
import selectors
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from k8sflow.errors import K8sflowError, RunError, StorageError
from k8sflow.executors.base import Emit, Finished, Output, Queued, Started
from k8sflow.executors.fork_server.client import Exit, ForkServer, no_process
from k8sflow.executors.fork_server.servers import ForkServers
from k8sflow.executors.fork_server.start import RunToServe
from k8sflow.executors.local_queue import TaskQueue
from k8sflow.executors.task_logs import TaskLogs, open_logs
from k8sflow.flow.decorators.environment import variables_of
from k8sflow.flow.decorators.policy import TimeLimit
from k8sflow.flow.outcome import Outcome
from k8sflow.task.host.framing import OutputStream
from k8sflow.task.host.supervise import TERM_SECONDS, TaskProcess, new_pipes
from k8sflow.task.host.wakeup import Wakeup
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TaskResult, ended_with, failed
from k8sflow.task.spec import TaskSpec
from k8sflow.task.stored_results import committed_result, withdraw_outcome, write_outcome


@dataclass(frozen=True)
class WindingDown:
    """The end of the machine that is ahead.

    Args:
        ends_at: When the tasks that still run are killed, as of ``time.monotonic``.
        reason: The end of a task that fails or is killed from now on.
        note: A sentence for the logs of the running tasks.
    """

    ends_at: float
    reason: TaskResult
    note: str


@dataclass(frozen=True)
class _Running:
    """A task that runs, with the logs of its output and the server that it was forked from."""

    process: TaskProcess
    take: Callable[[OutputStream, bytes], None]
    logs: TaskLogs
    server: ForkServer


class LocalExecutor:
    """Runs each task as a process of its own, up to ``max_workers`` at a time.

    One thread sleeps in one ``select`` over the pipes of all running tasks.

    Args:
        emit: Takes events.
        runner: The run.
        max_workers: How many processes at a time.
        limit_of: How long an execution of a step's task may take; None for any time.
        lock: A file descriptor that the fork servers keep open until the last task has ended, and no task.
        log_patience: How many seconds the rest of a task's output waits for a bucket that can't be reached; the task
            ends after that.
        log_limit_bytes: How much of each stream of a task is kept; None for all of it.
        outlives_sigterm: Whether SIGTERM does nothing in a task that has no handler for it, as in a pod that gives its
            step time to finish.
        python_of: The interpreter of a step's environment; None for that of this process.
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
        log_limit_bytes: int | None = None,
        outlives_sigterm: bool = False,
        python_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._emit = emit
        self._log_patience = log_patience
        self._log_limit_bytes = log_limit_bytes
        self._finishing: list[threading.Thread] = []
        self._limit_of = limit_of
        self._run_store = runner.run_store
        self._file = runner.record.file
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        served = RunToServe(
            runner.definition.flow,
            runner.record,
            runner.store,
            runner.folder,
            files,
            outlives_sigterm,
            runner.compression,
        )
        self._submitted: queue.SimpleQueue[Sequence[TaskSpec] | None] = queue.SimpleQueue()
        self._waiting = TaskQueue(max_workers)
        self._running: dict[int, _Running] = {}
        self._kills_explained = 0
        self._selector = selectors.DefaultSelector()
        self._wakeup = Wakeup()
        self._cancelled = threading.Event()
        self._winding_down: WindingDown | None = None
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._servers = ForkServers(served, lock, partial(_variables, runner), self._selector, python_of)
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
        self._wakeup.wake()

    def wind_down(self, end: WindingDown) -> None:
        """Sends SIGTERM to the running tasks, which have some time to finish, and starts no more."""
        self._winding_down = end
        self._wakeup.wake()

    def cancel(self) -> None:
        """Ends every process of every task: by SIGTERM, and after three seconds by SIGKILL."""
        self._cancelled.set()
        self._servers.cancel()
        self.close()

    def end(self) -> None:
        """As ``cancel``: finished tasks have left nothing but what is in the store."""
        self.cancel()

    def abandon(self) -> None:
        """Does nothing: the fork servers end the tasks when this process dies."""

    def close(self) -> None:
        """Ends the thread and the fork servers."""
        if self._thread.is_alive():
            self._submitted.put(None)
            self._wakeup.wake()
        self._thread.join()
        for thread in self._finishing:
            thread.join()
        self._servers.close(spare_orphans=not self._cancelled.is_set())
        self._wakeup.close()

    # ------------------------------------------------------------------ the thread

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001  the thread's boundary: its silent end would leave the driver waiting
            self._give_up(_broken(error))
        finally:
            if self._cancelled.is_set():
                self._terminate()
            self._selector.close()

    def _give_up(self, result: TaskResult) -> None:
        """Ends every task, also those still to be submitted: a fork server died, or a log can't be written."""
        self._signal(signal.SIGKILL)
        for running in self._running.values():
            running.process.close()  # all of them first: too many open files may be the reason
        for running in list(self._running.values()):
            self._finish_lost(running, result)
        for task in self._waiting:
            self._emit(Finished(task, result))
        while (submitted := self._submitted.get()) is not None:
            for task in submitted:
                self._emit(Finished(task, result))

    def _step(self) -> bool:
        """Starts what can start, and handles what has happened; False when the executor is to end."""
        if not self._take_submitted():
            return False
        if self._winding_down is not None:
            self._pass_on(self._winding_down)
        while self._winding_down is None and (group := self._waiting.startable(len(self._running))):
            for task in group:
                self._start(task)
                self._waiting.started()  # not before: ``_give_up`` also ends a task that can't be started
        for server in self._servers_with_exits(self._end_overdue()):
            for exit_ in self._servers.exits_of(server):
                self._ended(exit_)
        return True

    def _servers_with_exits(self, seconds: float | None) -> set[ForkServer]:
        """The servers with tasks that have ended; waits for one, or for output of a task, which it takes."""
        ending = {server for server in self._servers.all() if server.has_exits}
        ready = [] if ending else [key for key, _ in self._selector.select(seconds)]
        for key in ready:
            if key.fileobj is self._wakeup:
                self._wakeup.clear()
            elif isinstance(key.data, ForkServer):
                ending.add(key.data)
            else:
                process, stream = key.data
                process.read(stream)
        return ending

    def _take_submitted(self) -> bool:
        with contextlib.suppress(queue.Empty):
            while True:
                tasks = self._submitted.get_nowait()
                if tasks is None:
                    return False
                if (queued := self._waiting.add(tasks)) is not None:
                    self._emit(queued)
        return True

    def _pass_on(self, end: WindingDown) -> None:
        """Sends SIGTERM to the tasks that don't know yet that the machine is about to end."""
        for running in self._running.values():
            if running.process.ended_for is None:
                running.process.ended_for = end.reason
                running.take("stderr", f"[k8sflow] {end.note}\n".encode())
                running.process.end_within(end.ends_at - time.monotonic())

    def _end_overdue(self) -> float | None:
        """Ends the tasks whose time is over; returns in how many seconds the next one's is."""
        for running in self._running.values():
            running.process.end_overdue()
        first = min((running.process.deadline for running in self._running.values()), default=math.inf)
        return None if first == math.inf else max(0.0, first - time.monotonic())

    def _start(self, task: TaskSpec) -> None:
        logs = open_logs(self._run_store, task, self._patience, self._log_limit_bytes)

        def take(stream: OutputStream, data: bytes) -> None:
            logs.add(stream, data)
            self._emit(Output(task, stream, data))

        with new_pipes() as pipes:
            server, pid = self._servers.spawn(task, pipes.write_ends)
        process = TaskProcess(task, pid, pipes, self._selector, take, self._limit_of(task.name.step))
        self._running[pid] = _Running(process, take, logs, server)
        for notice in self._servers.new_notices(server):
            self._emit(Queued(task, notice))
        self._emit(Started(task, f"pid {pid}"))

    def _ended(self, exit_: Exit) -> None:
        running = self._running[exit_.pid]
        process, task = running.process, running.process.task
        process.drain()
        end = process.conclude(exit_.status, self._run_store, self._file, self._kills_explained)
        if end.result.outcome is Outcome.OUT_OF_MEMORY:
            self._kills_explained = end.kills.now
        if process.ended_for is not None or end.result.outcome.is_failure:
            process.kill_leftovers()
        if self._winding_down is not None and end.result.outcome is Outcome.CANCELLED:
            if end.known is not None:  # why the machine ends, only the driver knows: it records that
                withdraw_outcome(self._run_store, task, end.result)
        elif end.result is not end.known:
            write_outcome(self._run_store, task, end.result)
        self._finish(running, end.result)
        if task.nodes > 1 and end.result.outcome.is_failure:
            self._end_siblings(task)

    def _end_siblings(self, cause: TaskSpec) -> None:
        """Ends the tasks that run together with a failed one: they would wait for it forever."""
        reason = ended_with(cause.name)
        for process in [running.process for running in self._running.values()]:
            if process.task.first == cause.first and process.ended_for is None:
                process.end(reason)

    def _finish(self, running: _Running, result: TaskResult) -> None:
        running.process.close()

        def report(loss: str) -> None:
            self._emit(Finished(running.process.task, replace(result, note=loss) if loss else result))

        self._finish_logs(running.logs, report)
        del self._running[running.process.pid]  # not before: ``_give_up`` also ends a task whose logs can't be written

    def _finish_lost(self, running: _Running, result: TaskResult) -> None:
        """Reports the end of a task whose records may be the reason why no more tasks can be run."""
        task = running.process.task
        try:
            result = committed_result(self._run_store, task) or result
            self._finish(running, result)
        except Exception as error:  # noqa: BLE001  the driver waits for the end of each task, whatever happens here
            self._running.pop(running.process.pid, None)
            lost = f"its records can't be read or completed: {error}".partition("\n")[0]
            self._emit(Finished(task, replace(result, note=lost)))

    def _finish_logs(self, logs: TaskLogs, done: Callable[[str], None]) -> None:
        """Stores the rest of a task's output, while other tasks start and end."""
        thread = logs.finish(done)
        self._finishing = [each for each in self._finishing if each.is_alive()]
        if thread is not None:
            self._finishing.append(thread)

    def _patience(self) -> float:
        return TERM_SECONDS if self._cancelled.is_set() else self._log_patience

    def _terminate(self) -> None:
        """Ends all running tasks, and everything in their process groups."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + TERM_SECONDS
        for server in self._servers.all():
            server.socket.settimeout(TERM_SECONDS)
        with contextlib.suppress(K8sflowError, OSError):  # a log can't be written
            while self._running and (seconds := deadline - time.monotonic()) > 0:
                for server in self._servers_with_exits(seconds):
                    for pid in self._ended_since_cancelled(server):
                        self._cancelled_task(pid)
        self._signal(signal.SIGKILL)
        for pid in list(self._running):
            with contextlib.suppress(K8sflowError, OSError):
                self._cancelled_task(pid)

    def _ended_since_cancelled(self, server: ForkServer) -> list[int]:
        """The pids of tasks of a server that have ended: all of them, if it died."""
        try:
            return [exit_.pid for exit_ in server.exits()]
        except RunError:
            self._selector.unregister(server.socket)
            return [pid for pid, running in self._running.items() if running.server is server]

    def _cancelled_task(self, pid: int) -> None:
        """Stores the rest of the output of a task that has ended after the run was cancelled."""
        if (running := self._running.pop(pid, None)) is not None:
            running.process.kill_leftovers()
            running.process.drain()
            running.process.close()
            self._finish_logs(running.logs, lambda _: None)

    def _signal(self, number: signal.Signals) -> None:
        for running in self._running.values():
            running.process.signal(number)


def _variables(runner: TaskRunner, step: str) -> dict[str, str]:
    """The variables that ``@environment`` sets for a step; none for an exit hook, which belongs to no step."""
    definition = runner.definition
    if step not in definition.graph.nodes:
        return {}
    return variables_of(definition.decorations_of(step, definition.added(runner.record.decorators)))


def _broken(error: Exception) -> TaskResult:
    """Why no task can be run any more."""
    outcome = Outcome.STORAGE_ERROR if isinstance(error, StorageError) else Outcome.USER_ERROR
    if isinstance(error, K8sflowError):
        return failed(outcome, error.summary, error.cause, error.advice, is_final=True)  # this executor has ended
    advice = ""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        advice = "Raise the limit of open files (ulimit -n), or lower --max-workers."
    return failed(outcome, f"tasks can't be run on this machine: {type(error).__name__}: {error}", "", advice)
