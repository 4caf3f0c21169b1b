"""The agent of a pod that several tasks share.

One child of the agent runs the flow's file with the command ``tasks``: it starts the tasks as a run on a laptop does,
each as a process of its own, and writes their output, their starts and their ends to the container's log. To the agent
it reports each start and end, one a line: what is known survives its death, and becomes the termination message.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from k8sflow.flow.outcome import Outcome
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.framing import OutputStream
from k8sflow.task.host.reaping import catch_signals, reap
from k8sflow.task.host.supervise import Stream, TaskProcess, new_pipes
from k8sflow.task.host.verdict import verdict
from k8sflow.task.host.wakeup import Wakeup
from k8sflow.task.result import TaskResult, failed
from k8sflow.task.shared_results import SharedEnds

# The descriptor of the container's log, for the process that writes to it.
LOG_FD_VARIABLE = "K8SFLOW_LOG_FD"
_MOST_NOISE = 1000
_SIGNALLED = 128  # exit codes above are signals
_NOT_ITS_TURN = failed(Outcome.NEVER_STARTED, "its pod ended before it was its turn")

# What ends a process from the outside: neither is a fault of the code that runs in it.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM}

RunFlow = Callable[[Mapping[Stream, int]], NoReturn]


class SharedHost:
    """The agent while the tasks of its pod run.

    Args:
        tasks: The tasks.
        file: The flow's file.
        run_flow: Runs the flow's file in a child, with these pipes.
    """

    def __init__(self, tasks: TaskBatch, file: str, run_flow: RunFlow) -> None:
        self._tasks = tasks
        self._file = file
        self._run_flow = run_flow
        self._selector = selectors.DefaultSelector()
        self._process: TaskProcess | None = None
        self._is_terminated = False
        self._noise: deque[tuple[OutputStream, bytes]] = deque(maxlen=_MOST_NOISE)
        self._wakeup = Wakeup()

    def run(self) -> SharedEnds:
        """Runs the tasks, and returns their ends as far as they are known."""
        catch_signals(self._selector, self._wakeup, self._terminate)
        process = self._start()
        status = None
        while status is None:
            for key, _ in self._selector.select():
                if key.fileobj is self._wakeup:
                    self._wakeup.clear()
                else:
                    process.read(key.data[1])
            status = reap(process.pid)
        process.drain()
        process.kill_leftovers()
        return self._conclude(process, status)

    @property
    def noise(self) -> list[tuple[OutputStream, bytes]]:
        """The last output of the process itself: what the flow's file writes when it is imported."""
        return list(self._noise)

    def _start(self) -> TaskProcess:
        # The signal waits until the parent knows its child, and the child has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.environ[LOG_FD_VARIABLE] = str(log := os.dup(1))
        os.set_inheritable(log, True)
        with new_pipes() as pipes:
            pid = os.fork()
            if pid == 0:
                self._run_flow(pipes.write_ends)
        os.close(log)
        first = self._tasks[0]
        self._process = TaskProcess(first, pid, pipes, self._selector, lambda *piece: self._noise.append(piece), None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if self._is_terminated:
            self._terminate()
        return self._process

    def _terminate(self, _number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """Passes SIGTERM on; the process ends its tasks, at once or when the time that they have is over."""
        self._is_terminated = True
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGTERM)

    def _conclude(self, process: TaskProcess, status: int) -> SharedEnds:
        ends: dict[int, TaskResult] = {}
        started: set[int] = set()
        own: TaskResult | None = None
        for line in process.said.splitlines():
            position, _, rest = line.decode(errors="replace").partition(" ")
            with contextlib.suppress(ValueError):  # cut off by a kill
                if line.startswith(b"{"):
                    own = TaskResult.from_json(line.decode(errors="replace"))
                elif rest:
                    ends[int(position)] = TaskResult.from_json(rest)
                elif position:
                    started.add(int(position))
        if len(ends) == len(self._tasks) or self._is_terminated:
            return SharedEnds(ends)  # why the pod was sent SIGTERM, the driver learns from its status
        importing = "" if process.said else self._file
        died = verdict(status, own, None, None, process.kills(), importing)
        if process.said and died.outcome is Outcome.USER_ERROR and (name := _killed_by(status)):
            died = _killed_externally(name)
        if died.failure is not None and self._noise:
            said = b"".join(data for _, data in self._noise).decode(errors="replace").strip()
            died = replace(died, failure=replace(died.failure, detail=f"{died.failure.detail}\n{said}".strip()))
        others = {
            position: died if position in started or not started else _NOT_ITS_TURN
            for position in range(len(self._tasks))
        }
        return SharedEnds({**others, **ends})


def _killed_by(status: int) -> str:
    """The name of the signal by which somebody has ended the process that runs the tasks; empty if it was none."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status) - _SIGNALLED
    return signal.Signals(number).name if number in _FROM_OUTSIDE else ""


def _killed_externally(name: str) -> TaskResult:
    """The end of the tasks that ran when the process was killed that runs them, none of which is known to have done it.

    It runs k8sflow's code alone, so this is not an error of a step, and costs no retry: as if the agent was killed.
    """
    return failed(
        Outcome.NODE_LOST,
        f"the process that runs the branches of its pod was killed externally ({name}).",
        "",
        "`dmesg` on the node shows if it was short of memory; otherwise somebody, or one of the branches, has sent it.",
    )
