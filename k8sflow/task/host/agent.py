"""The first process of a task's pod: ``python3 -m k8sflow.task.host.agent``.

It fetches the code package, runs the task as a child, streams its output, uploads it as it grows, and reports by the
termination message and the last line of the log.

It runs on the Python of the user's image, so it needs nothing but the runtime folder and Python 3.10.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from k8sflow import config
from k8sflow.errors import K8sflowError, UnreachableError
from k8sflow.flow.decorators.policy import TimeLimit
from k8sflow.flow.outcome import Outcome
from k8sflow.outages import Notice
from k8sflow.storage import package
from k8sflow.storage.artifacts import blob_key
from k8sflow.storage.log_times import TimedLog
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import store_of
from k8sflow.storage.patience import FIRST_ANSWER_SECONDS, FIRST_CONTACT_SECONDS, Patience
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.written import get_written
from k8sflow.task import moments
from k8sflow.task.batch import TaskBatch
from k8sflow.task.conventions import MAIN_ADDRESS_VARIABLE, Surroundings
from k8sflow.task.failure import failure, never_reached, not_stored
from k8sflow.task.host import pod_environment
from k8sflow.task.host.become import become_task
from k8sflow.task.host.flow_process import CODE_FOLDER, run_file, run_in
from k8sflow.task.host.framing import Encoder, OutputStream, encode_result
from k8sflow.task.host.gang import MissingPeersError, wait_for_peers
from k8sflow.task.host.preemption import Preemption
from k8sflow.task.host.reaping import catch_signals, reap
from k8sflow.task.host.shared_agent import SharedHost
from k8sflow.task.host.supervise import Stream, TaskProcess, new_pipes
from k8sflow.task.host.uploads import LogUploads
from k8sflow.task.host.wakeup import Wakeup
from k8sflow.task.result import TaskResult, failed
from k8sflow.task.spec import EXIT_HOOK_STEP, TaskSpec
from k8sflow.task.stored_results import withdraw_outcome, write_outcome

TERMINATION_LOG = Path("/dev/termination-log")
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_LINGER_SECONDS = 0.25
_OUTPUTS: tuple[OutputStream, ...] = ("stdout", "stderr")
_EXIT_CODES = {Outcome.SUCCEEDED: 0, Outcome.OUT_OF_MEMORY: 137, Outcome.CANCELLED: 143}
# Native libraries that would start a thread for each core of the node, not of the pod.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the agent, from its command line."""
    parser = argparse.ArgumentParser(prog="k8sflow.task.host.agent")
    parser.add_argument("tasks", help="the tasks of the Job as JSON; of several, the pod has the one of its index")
    parser.add_argument("--store", required=True)
    parser.add_argument("--flow", required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--timeout", type=float, help="seconds that the task may take")
    parser.add_argument("--per-pod", type=int, default=1, help="how many of the tasks each pod has")
    parser.add_argument("--at-a-time", type=int, default=1, help="how many of them run at a time")
    parser.add_argument("--grace", type=float, default=0.0, help="seconds that it may take to end after that")
    parser.add_argument("--termination-grace", type=float, help="seconds after SIGTERM in which the step may finish")
    parser.add_argument("--peers", default="", help="the host name of each of the pods that run together, with %%d")
    parser.add_argument("--peers-timeout", type=float, default=0.0, help="seconds in which all of them have to come")
    parser.add_argument("--spot", default="", help="the cloud whose spot notices are looked for")
    parser.add_argument("--environment", action="store_true", help="install the step's packages")
    parser.add_argument("--trace", action="store_true", help="store the times of the task's moments")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the agent, and returns the container's exit code."""
    options = read_options(arguments)
    if options.trace:
        moments.note_process()
        moments.note("agent")
    pod_environment.complete()
    _limit_threads(options.at_a_time)
    index = int(os.environ.get(INDEX_VARIABLE, "0"))
    tasks = TaskBatch.from_json(options.tasks).share(index, options.per_pod)
    return _run_task(options, tasks[0]) if len(tasks) == 1 else _run_tasks(options, tasks)


def _run_task(options: argparse.Namespace, spec: TaskSpec) -> int:
    # Every other task follows one that has reached the bucket; what can't be reached then is an outage.
    is_first = not spec.inputs and not spec.attempt and spec.name.step != EXIT_HOOK_STEP
    try:
        store = open_bucket(options, FIRST_CONTACT_SECONDS if is_first else FIRST_ANSWER_SECONDS)
        run_store = RunStore(store, spec.flow, spec.run)
        _fetch(store, options)
    except UnreachableError as error:
        return _reported(never_reached(error, Surroundings.of_agent()) if is_first else not_stored(error))
    except K8sflowError as error:
        return _reported(not_stored(error))
    try:
        if options.peers:
            _meet(options, spec)
        result = _Host(options, run_store, spec).run()
    except MissingPeersError as error:
        result = error.result  # which the driver completes and records
    except K8sflowError as error:
        result = not_stored(error)
    return _reported(result)


def _run_tasks(options: argparse.Namespace, tasks: TaskBatch) -> int:
    """Runs the tasks that share this pod; each reports its own end to the log."""
    preemption = Preemption(Path.cwd(), options.termination_grace, "", lambda: None)
    words = ["tasks", tasks.to_json(), f"--store={options.store}", f"--at-a-time={options.at_a_time}"]
    if preemption.lets_step_finish:
        words.append(f"--finish-within={preemption.patience_seconds:g}")

    def start(pipes: Mapping[Stream, int]) -> NoReturn:
        # In the child, so that the agent has no client of the bucket in its memory.
        try:
            _fetch(open_bucket(options, FIRST_ANSWER_SECONDS), options)
        except K8sflowError as error:
            os.write(pipes["result"], not_stored(error).to_termination_message().encode())
            os._exit(1)
        _run_flow(options, words, pipes)

    host = SharedHost(tasks, options.file, start)
    found = host.run()
    for stream, data in host.noise:
        _write(Encoder(stream).feed(data))
    has_failed = any(end.outcome.is_failure for end in found.ends.values())
    unknown = _EXIT_CODES[Outcome.CANCELLED] if len(found.ends) < len(tasks) else 0
    return _leave(found.to_termination_message(), unknown or int(has_failed))


def _meet(options: argparse.Namespace, spec: TaskSpec) -> None:
    """Waits for the pods that run together with this one, and tells the task where the first of them is.

    Raises:
        MissingPeersError: Some of them don't come.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_EXIT_CODES[Outcome.CANCELLED]))
    address = wait_for_peers(options.peers, spec, options.peers_timeout, write_line)
    os.environ[MAIN_ADDRESS_VARIABLE] = address


def _reported(result: TaskResult) -> int:
    """Reports how the task ended; the container's exit code."""
    message = replace(result, log_lines=_LOG.lines).to_termination_message()
    code = _leave(message, _EXIT_CODES.get(result.outcome, 1))
    _write(encode_result(message))
    return code


def _leave(message: str, code: int) -> int:
    """Writes the termination message, and returns the container's exit code."""
    with contextlib.suppress(OSError):  # outside of a pod there is none
        TERMINATION_LOG.write_text(message, encoding="utf-8")
    return code


class _Host:
    """The agent while the task runs: forwards signals, and takes the output to the log and to the store."""

    def __init__(self, options: argparse.Namespace, run_store: RunStore, spec: TaskSpec) -> None:
        self._options = options
        self._run_store = run_store
        self._spec = spec
        self._selector = selectors.DefaultSelector()
        self._encoders = {stream: Encoder(stream) for stream in _OUTPUTS}
        self._process: TaskProcess | None = None
        self._wakeup = Wakeup()
        self._preemption = Preemption(Path.cwd(), options.termination_grace, options.spot, self._wakeup.wake)
        self._settings = config.load(Path.cwd())

    def run(self) -> TaskResult:
        """Runs the task, and returns its result."""
        catch_signals(self._selector, self._wakeup, self._terminate)
        process = self._start()
        self._uploads = LogUploads({stream: self._open_log(stream) for stream in _OUTPUTS}, self._patience, self._say)
        if self._spec.memory:
            number, memory = self._spec.attempt, self._spec.memory
            self._note(f"attempt {number} has memory={memory}, because an earlier one ran out of memory.")
        self._preemption.watch()
        status = self._pump(process)
        loss = self._uploads.close()
        return replace(self._conclude(process, status), note=loss)

    def _start(self) -> TaskProcess:
        sys.stdout.flush()
        # The signal waits until the parent knows its child, and the child has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        with new_pipes() as pipes:
            pid = os.fork()
            if pid == 0:
                words = ["step", self._spec.to_json(), f"--store={self._options.store}"]
                is_patient = self._preemption.lets_step_finish
                _run_flow(self._options, words, pipes.write_ends, outlives_sigterm=is_patient)
        timeout, grace = self._options.timeout, self._options.grace
        limit = None if timeout is None else TimeLimit(timeout, grace)
        self._process = TaskProcess(self._spec, pid, pipes, self._selector, self._take, limit)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if self._preemption.is_terminated:
            self._terminate()
        return self._process

    def _take(self, stream: OutputStream, data: bytes) -> None:
        _write(self._encoders[stream].feed(data))
        self._uploads.add(stream, data)

    def _patience(self) -> float:
        return self._preemption.storing_seconds if self._preemption.is_terminated else self._settings.storage_patience

    def _say(self, text: str) -> None:
        """Writes a line of k8sflow's to the task's standard error."""
        _write(self._encoders["stderr"].feed(f"[k8sflow] {text}\n".encode()))

    def _note(self, text: str) -> None:
        """Writes a line of k8sflow's to the task's standard error, also in its log."""
        self._take("stderr", f"[k8sflow] {text}\n".encode())

    def _open_log(self, stream: str) -> TimedLog:
        name = self._spec.name
        return self._run_store.open_log(name.step, name.id, self._spec.attempt, stream, self._settings.log_limit_bytes)

    def _terminate(self, _number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """Passes SIGTERM on to the task; the kubelet sends SIGKILL when the pod's grace period is over."""
        self._preemption.terminate()
        self._run_store.store.limit_patience(self._preemption.storing_seconds)
        if self._process is None:
            return
        self._process.ended_for = self._process.ended_for or failed(
            Outcome.CANCELLED, f"its {Surroundings.of_agent().value} was sent SIGTERM"
        )
        if self._preemption.lets_step_finish:
            self._process.end_within(self._preemption.seconds_left)
        else:
            self._process.signal(signal.SIGTERM)

    def _pump(self, process: TaskProcess) -> int:
        """Takes the output until the process has ended; returns its exit status."""
        status = None
        while status is None:
            process.end_overdue()
            self._write_notes()
            ready = self._selector.select(_LINGER_SECONDS)
            if not ready:
                self._flush()
            for key, _ in ready:
                if key.fileobj is self._wakeup:
                    self._wakeup.clear()
                else:
                    process.read(key.data[1])
            status = reap(process.pid)
        process.drain()
        self._write_notes()
        self._flush()
        return status

    def _write_notes(self) -> None:
        while self._preemption.notes:
            self._note(self._preemption.notes.popleft())

    def _flush(self) -> None:
        for encoder in self._encoders.values():
            _write(encoder.flush())

    def _conclude(self, process: TaskProcess, status: int) -> TaskResult:
        end = process.conclude(status, self._run_store, self._options.file)
        end = replace(end, result=self._preemption.excuse(end.result))
        # Why the pod was sent SIGTERM, the driver knows or learns from the pod's status: it records that.
        if end.result.outcome is Outcome.CANCELLED:
            if end.known is not None:
                withdraw_outcome(self._run_store, self._spec, end.result)
        elif end.result is not end.known:
            write_outcome(self._run_store, self._spec, end.result)
        return end.result


def _run_flow(
    options: argparse.Namespace, words: Sequence[str], pipes: Mapping[Stream, int], *, outlives_sigterm: bool = False
) -> NoReturn:
    """Runs the flow's file as a process of its own; the words are its command line."""
    try:
        become_task(pipes["stdout"], pipes["stderr"], outlives_sigterm=outlives_sigterm)
        if not options.environment:
            run_file(options.file, words, pipes["result"])
        from k8sflow.task.host.installation import installed  # noqa: PLC0415  most steps have no packages of their own

        tasks = TaskBatch.from_json(options.tasks).template
        store = open_bucket(options, FIRST_ANSWER_SECONDS)
        lock = RunStore(store, tasks.flow, tasks.run).read().environments[tasks.name.step]
        python = installed(tasks.name.step, lock, store, options.flow, _say_as_task)
        run_in(python, options.file, words, pipes["result"], outlives_sigterm=outlives_sigterm)
    except BaseException as error:  # noqa: BLE001  nothing may reach the agent's frames
        os.write(pipes["result"], failure(error).to_termination_message().encode())
        os._exit(1)


def _say_as_task(text: str) -> None:
    os.write(2, f"[k8sflow] {text}\n".encode())


def open_bucket(options: argparse.Namespace, first_seconds: float) -> ObjectStore:
    """The run's bucket, with a patience for its first answer."""
    settings = config.load(Path.cwd())
    patience = Patience(settings.storage_patience, first_seconds, _say_alone)
    return store_of(settings, options.store, patience)


def _fetch(store: ObjectStore, options: argparse.Namespace) -> None:
    archive = get_written(store, blob_key(options.flow, options.package))
    package.extract(archive, options.package, Path(CODE_FOLDER))
    moments.note("fetched")


def _say_alone(notice: Notice) -> None:
    """Writes a line of k8sflow's where no output of the task is in between: in the main thread."""
    if threading.current_thread() is threading.main_thread():
        write_line(notice.text)


def write_line(text: str) -> None:
    """Writes a line of k8sflow's to the log."""
    _write(Encoder("stderr").feed(f"[k8sflow] {text}\n".encode()))


def _limit_threads(at_a_time: int) -> None:
    """Holds native thread pools to the cores that the pod asked for, where the user said nothing else.

    Args:
        at_a_time: How many tasks share the cores.
    """
    if cores := os.environ.get("K8SFLOW_CPUS"):
        if at_a_time > 1:
            os.environ["K8SFLOW_CPUS"] = cores = str(max(1, int(cores) // at_a_time))
        for name in _THREAD_VARIABLES:
            os.environ.setdefault(name, cores)


class _Log:
    """The container's log.

    It counts its lines: a driver that shows them compares, since a log that is rotated quickly loses some of them.
    """

    def __init__(self) -> None:
        self.lines = 0
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Writes whole lines."""
        with self._lock:
            self.lines += data.count(b"\n")
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


_LOG = _Log()
_write = _LOG.write


if __name__ == "__main__":
    sys.exit(main())
