"""The first process of a task's pod: ``python3 -m k8sflow.task.host.agent``.

It fetches the code package, runs the task as a child, streams its output, uploads it as it grows, and reports by the
termination message and the last line of the log.

It runs on the Python of the user's image, so it needs nothing but the runtime folder and Python 3.10.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from k8sflow import config, debug_log, shadowing
from k8sflow.errors import K8sflowError, UnreachableError
from k8sflow.parallel.limits import out_of_memory_kills
from k8sflow.storage import package
from k8sflow.storage.artifacts import blob_key
from k8sflow.storage.logs import TimedLog
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open import open_store
from k8sflow.storage.patience import FIRST_ANSWER_SECONDS, FIRST_CONTACT_SECONDS, Patience
from k8sflow.storage.run_store import RunStore
from k8sflow.task import streams
from k8sflow.task.death import death, last_word, timed_out
from k8sflow.task.failure import has_entered, never_reached, not_stored, unloadable
from k8sflow.task.host import pod_environment
from k8sflow.task.host.framing import Encoder, Stream, encode_result
from k8sflow.task.host.oom import out_of_memory
from k8sflow.task.host.pipes import waiting_bytes
from k8sflow.task.host.uploads import LogUploads
from k8sflow.task.outcome import Diagnosis, Outcome
from k8sflow.task.protocol import RESULT_FD_VARIABLE, TIME_IS_OVER
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import EXIT_HOOK_STEP, TaskSpec
from k8sflow.task.stored_results import committed_result, write_outcome

TERMINATION_LOG = Path("/dev/termination-log")
CODE_FOLDER = "code"
_READ_BYTES = 1 << 16
_LINGER_SECONDS = 0.25
_TERM_SECONDS = 3.0
_EXIT_CODES = {Outcome.SUCCEEDED: 0, Outcome.OUT_OF_MEMORY: 137, Outcome.CANCELLED: 143}
# Native libraries that would start a thread for each core of the node, not of the pod.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the agent, and returns the container's exit code."""
    parser = argparse.ArgumentParser(prog="k8sflow.task.host.agent")
    parser.add_argument("task", help="the task as JSON")
    parser.add_argument("--store", required=True)
    parser.add_argument("--flow", required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--timeout", type=float, help="seconds that the task may take")
    parser.add_argument("--grace", type=float, default=0.0, help="seconds that it may take to end after that")
    options = parser.parse_args(arguments)
    pod_environment.complete()
    _limit_threads()
    return _run_task(options)


def _run_task(options: argparse.Namespace) -> int:
    spec = TaskSpec.from_json(options.task)
    # Every other task follows one that has reached the bucket; what can't be reached then is an outage.
    is_first = not spec.inputs and not spec.attempt and spec.name.step != EXIT_HOOK_STEP
    try:
        store = _open(options, FIRST_CONTACT_SECONDS if is_first else FIRST_ANSWER_SECONDS)
        run_store = RunStore(store, spec.flow, spec.run)
        _fetch(store, options)
    except UnreachableError as error:
        return _reported(never_reached(error) if is_first else not_stored(error))
    except K8sflowError as error:
        return _reported(not_stored(error))
    try:
        result = _Child(options, run_store, spec).run()
    except K8sflowError as error:
        result = not_stored(error)
    return _reported(result)


def _reported(result: TaskResult) -> int:
    """Reports how the task ended; the container's exit code."""
    message = result.to_termination_message()
    with contextlib.suppress(OSError):  # outside of a pod there is none
        TERMINATION_LOG.write_text(message, encoding="utf-8")
    _write(encode_result(message))
    return _EXIT_CODES.get(result.outcome, 1)


class _Child:
    """The process that runs the user's code, and what the agent does while it runs."""

    def __init__(self, options: argparse.Namespace, run_store: RunStore, spec: TaskSpec) -> None:
        self._options = options
        self._run_store = run_store
        self._spec = spec
        self._selector = selectors.DefaultSelector()
        self._encoders: dict[Stream, Encoder] = {"stdout": Encoder("stdout"), "stderr": Encoder("stderr")}
        self._result = bytearray()
        self._terminated = False
        self._timed_out = False
        self._pid = 0
        self._seconds = config.load(Path.cwd()).storage_patience

    def run(self) -> TaskResult:
        """The task's result."""
        kills_before = out_of_memory_kills()
        wakeup = self._catch_signals()
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "result")}
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until parent and child each know who they are
        self._pid = os.fork()
        if self._pid == 0:
            _become_task(self._options, {name: write for name, (_, write) in pipes.items()})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if self._terminated:
            self._terminate()
        for name, (read_end, write_end) in pipes.items():
            os.close(write_end)
            os.set_blocking(read_end, False)
            self._selector.register(read_end, selectors.EVENT_READ, name)
        self._uploads = LogUploads({name: self._open_log(name) for name in self._encoders}, self._patience, self._say)
        status = self._pump(wakeup)
        loss = self._uploads.close()
        return replace(self._conclude(status, kills_before), note=loss)

    def _patience(self) -> float:
        return _TERM_SECONDS if self._terminated else self._seconds

    def _say(self, text: str) -> None:
        """Writes a line of ours among the task's standard error."""
        _write(self._encoders["stderr"].feed(f"[k8sflow] {text}\n".encode()))

    def _open_log(self, stream: str) -> TimedLog:
        name = self._spec.name
        return self._run_store.open_log(name.step, name.id, self._spec.attempt, stream)

    def _catch_signals(self) -> socket.socket:
        writing, reading = socket.socketpair()
        for end in (writing, reading):
            end.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._writing = writing  # kept open as long as signals may come
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._terminate)
        self._selector.register(reading, selectors.EVENT_READ, "signal")
        return reading

    def _terminate(self, _number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        self._terminated = True
        self._run_store.store.limit_patience(_TERM_SECONDS)  # the pod has a few seconds left
        if self._pid:
            self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:  # it has no group of its own yet, or is gone
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _pump(self, wakeup: socket.socket) -> int:
        """Passes the output on until the child has ended; returns its status."""
        self._deadline = time.monotonic() + (math.inf if self._options.timeout is None else self._options.timeout)
        while True:
            self._end_overdue()
            ready = self._selector.select(_LINGER_SECONDS)
            if not ready:
                for name in self._encoders:
                    _write(self._encoders[name].flush())
            for key, _ in ready:
                if key.fileobj is wakeup:
                    with contextlib.suppress(BlockingIOError):
                        wakeup.recv(4096)
                else:
                    self._read(key)
            if (status := self._reap()) is not None:
                break
        for key in [key for key in self._selector.get_map().values() if key.fileobj is not wakeup]:
            left = waiting_bytes(key.fd)
            while left > 0 and (taken := self._read(key, left)):
                left -= taken
        for encoder in self._encoders.values():
            _write(encoder.flush())
        return status

    def _end_overdue(self) -> None:
        """Ends the task when its time is over: by an exception in its step, then by SIGKILL to all that it started."""
        if time.monotonic() < self._deadline:
            return
        if self._timed_out or not self._options.grace:
            self._end(signal.SIGKILL)
            self._deadline += _TERM_SECONDS
        else:
            self._deadline += self._options.grace
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, TIME_IS_OVER)
        self._timed_out = True

    def _reap(self) -> int | None:
        """Waits for whatever ended, as the first process of a container has to; the child's status, if it did."""
        found = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._pid:
                    found = status
        return found

    def _read(self, key: selectors.SelectorKey, most: int = _READ_BYTES) -> int:
        """Takes what is in a pipe; how many bytes that was."""
        try:
            data = os.read(key.fd, most)
        except BlockingIOError:
            return 0
        if not data:
            self._selector.unregister(key.fileobj)
            os.close(key.fd)
            return 0
        if key.data == "result":
            self._result += data
        else:
            _write(self._encoders[key.data].feed(data))
            self._uploads.add(key.data, data)
        return len(data)

    def _conclude(self, status: int, kills_before: int) -> TaskResult:
        result = last_word(self._result, status)
        if result is None:
            result = committed_result(self._run_store, self._spec)
        if self._terminated and not self._timed_out and (result is None or result.outcome is Outcome.USER_ERROR):
            return self._stopped(result)
        killed_for_memory = out_of_memory_kills() > kills_before
        if self._timed_out and result is None:
            result = TaskResult(Outcome.TIMED_OUT, diagnosis=timed_out(self._options.timeout))
            write_outcome(self._run_store, self._spec, result)
        if result is None:
            importing = "" if self._result else self._options.file
            result = TaskResult(Outcome.USER_ERROR, diagnosis=death(status, importing))
            if not killed_for_memory:
                write_outcome(self._run_store, self._spec, result)
        if killed_for_memory and result.outcome is Outcome.USER_ERROR:
            result = TaskResult(Outcome.OUT_OF_MEMORY, diagnosis=out_of_memory(result.diagnosis, in_pod=True))
            write_outcome(self._run_store, self._spec, result)
        return result

    def _stopped(self, result: TaskResult | None) -> TaskResult:
        """The result of a task that was sent SIGTERM: the driver knows why, or asks the pod's status.

        The signal went to the children of the task too, so an exception that came after it is no fault of its code.
        """
        detail = result.diagnosis.summary if result is not None and result.diagnosis is not None else ""
        stopped = Diagnosis(Outcome.CANCELLED, "its pod was sent SIGTERM", detail)
        found = TaskResult(Outcome.CANCELLED, diagnosis=stopped)
        if result is not None:
            write_outcome(self._run_store, self._spec, found)
        return found


def _become_task(options: argparse.Namespace, pipes: dict[str, int]) -> NoReturn:
    """Runs the flow's file as the task's process; its command line does the rest."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.dup2(pipes["stdout"], 1)
        os.dup2(pipes["stderr"], 2)
        streams.renew()
        os.environ[RESULT_FD_VARIABLE] = str(pipes["result"])
        os.chdir(CODE_FOLDER)
        sys.argv = [str(Path(options.file).resolve()), "step", options.task, f"--store={options.store}"]
        shadowing.protect(folder := str(Path.cwd()))
        sys.path.insert(0, folder)
        if "/" in options.file:  # it was started by `python -m`
            runpy.run_module(options.file.removesuffix(".py").replace("/", "."), run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not has_entered(end):
            os.write(pipes["result"], unloadable(options.file, end, in_pod=True).to_termination_message().encode())
    except BaseException as error:  # noqa: BLE001  nothing may pass into the agent's frames
        os.write(pipes["result"], unloadable(options.file, error, in_pod=True).to_termination_message().encode())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _open(options: argparse.Namespace, first_seconds: float) -> ObjectStore:
    settings = debug_log.configure(config.load(Path.cwd()))
    patience = Patience(settings.storage_patience, first_seconds, _say_alone)
    return open_store(options.store, endpoint=settings.endpoint, region=settings.region, patience=patience)


def _fetch(store: ObjectStore, options: argparse.Namespace) -> None:
    archive = store.get(blob_key(options.flow, options.package))
    package.extract(archive, options.package, Path(CODE_FOLDER))


def _say_alone(text: str, _is_over: bool) -> None:  # noqa: FBT001  as ``patience.Report``
    """Writes a line of ours where no output of the task is in between: in the main thread."""
    if threading.current_thread() is threading.main_thread():
        _write(Encoder("stderr").feed(f"[k8sflow] {text}\n".encode()))


def _limit_threads() -> None:
    """Holds native thread pools to the cores that the pod asked for, where the user said nothing else."""
    if cores := os.environ.get("K8SFLOW_CPUS"):
        for name in _THREAD_VARIABLES:
            os.environ.setdefault(name, cores)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(main())
