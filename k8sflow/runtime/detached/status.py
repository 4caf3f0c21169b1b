"""The status of a run's FlowRun: the driver in the cluster writes into it what the run's tally counts."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus

from k8sflow.config import Settings
from k8sflow.errors import K8sflowError
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.flowrun import Phase, TaskCounts, message_of, timestamp
from k8sflow.kubernetes.kubeconfig import load_access
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.outages import Notice
from k8sflow.runtime.core.actions import RunEnd, RunResult
from k8sflow.runtime.progress.console import Console
from k8sflow.runtime.progress.tally import Tally

_PATIENCE_SECONDS = 5.0
_LAST_WORD_PATIENCE_SECONDS = 120.0
_WRITE_SECONDS = 1.0
_SIGTERM_EXIT_CODE = 143


def running_status(tally: Tally, started_at: str, *notices: str) -> Manifest:
    """The status of a run that is driven.

    Args:
        tally: Its tasks.
        started_at: When its first driver started.
        notices: What is to be shown about the run as a whole.
    """
    waiting = tally.waiting
    return {
        "phase": Phase.RUNNING.value,
        "message": message_of(*notices, f"{waiting[0]} waits: {waiting[1]}" if waiting is not None else ""),
        "tasks": TaskCounts(*tally.counts).to_document(),
        "startedAt": started_at,
    }


def final_status(tally: Tally, started_at: str, result: RunResult, now: float) -> Manifest:
    """The status of a run that has ended."""
    phase, message = _end(result)
    total, _, done, failed = tally.counts
    return {
        "phase": phase.value,
        "message": message_of(message, *(f"{name}: {note}" for name, note in tally.notes)),
        "tasks": TaskCounts(total, 0, done, failed).to_document(),
        "startedAt": started_at,
        "finishedAt": timestamp(now),
    }


def _end(result: RunResult) -> tuple[Phase, str]:
    if result.end is RunEnd.CANCELLED:
        return Phase.CANCELLED, "the run was cancelled."
    if result.failed is None or result.result is None:
        return Phase.SUCCEEDED, ""
    outcome, diagnosis = result.result.outcome, result.result.failure
    if outcome is Outcome.CANCELLED:
        return Phase.CANCELLED, f"{result.failed.name} was cancelled: {result.result.explained.summary}"
    summary = f"{result.failed.name} failed ({outcome.value.replace('_', ' ')})"
    if diagnosis is None:
        return Phase.FAILED, summary
    return Phase.FAILED, message_of(f"{summary}: {diagnosis.summary}", diagnosis.resolution)


class FlowRunStatus:
    """Writes the status of a run's FlowRun: phase and counters, at most once a second, from a thread of its own.

    An API that can't be reached for a while doesn't disturb the run; the end is written with patience.

    Args:
        settings: The settings of the driver's pod.
        namespace: Namespace of the FlowRun.
        name: Its name.
        console: The driver's log.

    Raises:
        KubernetesError: There is no such FlowRun (any more), or it can't be read.
    """

    def __init__(self, settings: Settings, namespace: str, name: str, console: Console) -> None:
        self._console = console
        self._access = load_access(settings.kubernetes_context, os.environ)
        self._path = flowruns.object_path(namespace, name)
        found = self._call(lambda api: api.get(self._path), _LAST_WORD_PATIENCE_SECONDS)
        self.owner: Manifest = flowruns.owner_reference(found)
        before: Manifest = found.get("status") or {}
        self._started_at = str(before.get("startedAt") or timestamp(time.time()))
        self._tally = Tally()
        self._notices: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @contextmanager
    def showing(self, tally: Tally) -> Iterator[None]:
        """Shows the counters of a run inside the block."""
        self._tally = tally
        self._start_writing()
        try:
            yield
        finally:
            self._closing.set()

    def outage(self, notice: Notice) -> None:
        """Shows in the driver's log, and until it is over in the FlowRun's message, what doesn't answer."""
        self._console.say(notice.text)
        others = {subject: text for subject, text in self._notices.items() if subject != notice.subject}
        self._notices = others if notice.is_over else {**others, notice.subject: notice.text}
        self._start_writing()

    def interrupted(self) -> None:
        """Handles the driver's SIGTERM: returns where the run is to be cancelled, and else ends this process.

        Deleting the FlowRun cancels the run. Draining the node or deleting the pod only ends this driver: the next one
        continues from the store, as after ``kill -9``.
        """
        # A signal may come while this thread is in an event loop, so the question is asked in another.
        with ThreadPoolExecutor(1) as pool:
            is_wanted = pool.submit(self._is_wanted).result()
        if is_wanted:
            self._console.say("This driver was stopped; another one will take the run over.")
            sys.stdout.flush()
            os._exit(_SIGTERM_EXIT_CODE)

    def close(self, result: RunResult) -> None:
        """Writes how the run ended."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        status = final_status(self._tally, self._started_at, result, time.time())
        try:
            self._call(lambda api: self._patch(api, status), _LAST_WORD_PATIENCE_SECONDS)
        except K8sflowError as error:
            if getattr(error, "status", None) == HTTPStatus.NOT_FOUND:
                return  # it was deleted
            # The store has the outcome, and the exit code tells the controller.
            self._console.say(f"The end of the run can't be written into its FlowRun: {error}", is_aside=True)

    def _is_wanted(self) -> bool:
        """True if the FlowRun still exists, and where that can't be known."""
        try:
            found = self._call(lambda api: api.get(self._path), _PATIENCE_SECONDS)
        except K8sflowError as error:
            return getattr(error, "status", None) != HTTPStatus.NOT_FOUND
        return not found["metadata"].get("deletionTimestamp") and found["metadata"]["uid"] == self.owner["uid"]

    def _start_writing(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_on, name="k8sflow-flowrun", daemon=True)
            self._thread.start()

    def _write_on(self) -> None:
        while not self._closing.is_set():
            try:
                asyncio.run(self._write_while_open())
            except Exception as error:  # noqa: BLE001  the thread's border: else the counters would no longer change
                text = f"The FlowRun's status can't be written: {type(error).__name__}: {error}"
                self._console.say(text, is_aside=True)
                self._closing.wait(_PATIENCE_SECONDS)

    async def _write_while_open(self) -> None:
        async with KubernetesApi(self._access, patience_seconds=_PATIENCE_SECONDS) as api:
            written: Manifest = {}
            while True:
                status = running_status(self._tally, self._started_at, *self._notices.values())
                if status != written and (self._tally.steps or self._notices):
                    # The next second has newer counters; only a reader of the status misses these.
                    with suppress(K8sflowError):
                        await self._patch(api, status)
                        written = status
                if await asyncio.to_thread(self._closing.wait, _WRITE_SECONDS):
                    return

    async def _patch(self, api: KubernetesApi, status: Manifest) -> Manifest:
        return await api.patch(f"{self._path}/status", {"status": status})

    def _call(self, work: Callable[[KubernetesApi], Awaitable[Manifest]], patience_seconds: float) -> Manifest:
        async def call() -> Manifest:
            async with KubernetesApi(self._access, patience_seconds=patience_seconds) as api:
                return await work(api)

        return asyncio.run(call())
