"""A pod on its way out: SIGTERM of the kubelet, or the notice that a spot node is about to be taken away.

The step learns of it by a file, which ``current.preempted`` looks for: so do its threads, its forks and its child
processes.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from k8sflow.flow.outcome import Outcome
from k8sflow.task.conventions import NOTICE_VARIABLE
from k8sflow.task.host.supervise import TERM_SECONDS
from k8sflow.task.result import TaskResult, failed

# The end of the grace, in which the task is killed if need be, and its output and its result are stored.
RESERVED_SECONDS = 3.0
SIGTERM = "SIGTERM"


def write_notice(file: Path, reason: str) -> None:
    """Writes the file that the step looks for, whole or not at all; the first reason stays."""
    if file.exists():
        return
    received = datetime.now(timezone.utc).isoformat(timespec="seconds")
    temporary = file.with_suffix(f".{threading.get_ident()}")
    temporary.write_text(json.dumps({"reason": reason, "received": received}), encoding="utf-8")
    temporary.replace(file)


def note_of_sigterm(seconds: float) -> str:
    """The sentence about SIGTERM for the log of a step that has so many seconds left."""
    return f"the pod was sent SIGTERM: the step has {seconds:g} s to finish or to save its state."


class Preemption:
    """The end of the pod that may be ahead.

    Args:
        folder: The folder of the file that the step looks for.
        grace_seconds: The time between SIGTERM and SIGKILL; None where a task is to end at SIGTERM.
        cloud: The cloud whose metadata service is asked for notices; empty for none.
        wake: Wakes the agent, which then takes the ``notes``; called in another thread.
    """

    def __init__(self, folder: Path, grace_seconds: float | None, cloud: str, wake: Callable[[], None]) -> None:
        self.is_terminated = False
        self.notes: deque[str] = deque()
        self._file = folder / "preempted.json"
        self._seconds = None if grace_seconds is None else grace_seconds - RESERVED_SECONDS
        self._cloud = cloud
        self._wake = wake
        self._ends_at = math.inf
        self._notice = ""
        self._file.unlink(missing_ok=True)  # that of another container of the same pod
        os.environ[NOTICE_VARIABLE] = str(self._file)

    @property
    def lets_step_finish(self) -> bool:
        """True if the step continues after SIGTERM."""
        return self._seconds is not None

    @property
    def patience_seconds(self) -> float:
        """The seconds that the step is given after SIGTERM; 0 where it is to end at once."""
        return max(0.0, self._seconds or 0.0)

    @property
    def seconds_left(self) -> float:
        """The seconds for which the step may continue after SIGTERM."""
        return max(0.0, self._ends_at - time.monotonic())

    @property
    def storing_seconds(self) -> float:
        """The seconds that output and result may take to be stored after SIGTERM."""
        return self.seconds_left + TERM_SECONDS

    def terminate(self) -> None:
        """Takes note of SIGTERM; called by its handler."""
        if self.is_terminated:
            return
        self.is_terminated = True
        self._ends_at = time.monotonic() + (self._seconds or 0.0)
        write_notice(self._file, SIGTERM)
        if self._seconds is not None:
            self.notes.append(note_of_sigterm(self._seconds))

    def watch(self) -> None:
        """Starts to look for a notice of the cloud, if there is one to ask."""
        if self._cloud:
            threading.Thread(target=self._watch, name="k8sflow-spot", daemon=True).start()

    def excuse(self, result: TaskResult) -> TaskResult:
        """The result of a task; a step that fails after the notice may have ended because of it."""
        if not self._notice or result.outcome is not Outcome.USER_ERROR:
            return result
        found = result.explained
        detail = "\n".join(part for part in (found.summary, found.detail) if part)
        summary = f"its node is about to be taken away ({self._notice})"
        return failed(Outcome.PREEMPTED, summary, detail, "It runs again on another node.", found.error_type)

    def _watch(self) -> None:
        from k8sflow.task.host import spot  # noqa: PLC0415  few pods ask a metadata service

        notice = spot.wait_for_notice(spot.service(self._cloud), self._say)
        self._notice = notice
        self._say(f"the node is about to be taken away ({notice}).")  # before the step can see it, and end
        write_notice(self._file, notice)

    def _say(self, text: str) -> None:
        self.notes.append(text)
        self._wake()
