"""The executor that runs each task as a Kubernetes Job."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from k8sflow.errors import KubernetesError
from k8sflow.executors.context import RunContext
from k8sflow.executors.kubernetes.jobs import Jobs
from k8sflow.executors.kubernetes.run_objects import delete_run
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.kubeconfig import ClusterAccess, load_access
from k8sflow.kubernetes.reflector import UNREACHABLE_SECONDS
from k8sflow.task.spec import TaskSpec
from k8sflow.units import rough_duration

_CLEAN_UP_PATIENCE_SECONDS = 10.0
_ABANDON_SECONDS = 5.0


class KubernetesExecutor:
    """Runs tasks as Jobs of one namespace, all of them from one thread with one event loop.

    Jobs that have finished stay, with their pods, until their time is over, to be looked at; ``cancel`` deletes
    everything at once, and ``end`` what is unfinished.

    Args:
        context: The run. Its ``report`` is called in the executor's thread; after an error it gets no more events, not
            even a ``Finished`` for the tasks that are not finished.
        access: The cluster, where it is not to be found by the settings.
    """

    def __init__(self, context: RunContext, access: ClusterAccess | None = None) -> None:
        self._context = context
        self._access = access
        self._thread: threading.Thread | None = None
        self._ready: Future[tuple[asyncio.AbstractEventLoop, Jobs]] = Future()
        self._over: Future[None] = Future()

    def submit(self, tasks: Sequence[TaskSpec]) -> None:
        """Takes tasks of one step; their Jobs are made in the background."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="k8sflow-kubernetes", daemon=True)
            self._thread.start()
        if self._ready.exception() is not None:
            return  # the error was reported
        loop, jobs = self._ready.result()
        try:
            loop.call_soon_threadsafe(jobs.submit, tasks)
        except RuntimeError:
            self._over.result()  # the loop is closed because it failed, which was reported; else this is an error

    def cancel(self) -> None:
        """Deletes every object of the run, and returns when no pod of it is left.

        Raises:
            KubernetesError: Something couldn't be deleted, or is still there after a minute.
        """
        if self._thread is None:
            return
        if not self._call(lambda jobs: jobs.cancel()):
            asyncio.run(self._clean_up())

    def end(self) -> None:
        """Ends the unfinished tasks, and returns when none of their pods runs.

        Raises:
            KubernetesError: As ``cancel``.
        """
        if self._thread is not None and not self._call(lambda jobs: jobs.end()):
            asyncio.run(self._clean_up())

    def abandon(self) -> None:
        """Sends the deletes of every object of the run, and waits a few seconds for the server to take them."""
        if self._thread is None or not self._ready.done() or self._ready.exception() is not None:
            return
        loop, jobs = self._ready.result()
        with contextlib.suppress(RuntimeError, KubernetesError, FutureTimeoutError):  # best effort: the process leaves
            asyncio.run_coroutine_threadsafe(jobs.send_deletes(), loop).result(_ABANDON_SECONDS)

    def close(self) -> None:
        """Ends the thread; finished Jobs stay until their time is over."""
        if self._thread is not None:
            self._call(lambda jobs: jobs.close())
            self._thread.join()

    def _call(self, work: Callable[[Jobs], Coroutine[Any, Any, None]]) -> bool:
        """Runs ``work`` in the loop and waits for it; False where there is no loop (any more)."""
        if self._ready.exception() is not None:
            return False
        loop, jobs = self._ready.result()
        coroutine = work(jobs)
        try:
            done = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            return False
        wait({done, self._over}, return_when=FIRST_COMPLETED)
        if not done.done() or done.cancelled():
            return False
        done.result()
        return True

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - the thread's border: the driver must hear of everything
            if not self._ready.done():
                self._ready.set_exception(error)
            self._context.report(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        finally:
            self._over.set_result(None)

    async def _serve(self) -> None:
        async with KubernetesApi(self._load_access(), report=self._context.notice) as api:
            api.put_at_stake(f"Tasks keep running; retrying for up to {rough_duration(UNREACHABLE_SECONDS)}.")
            jobs = Jobs(api, self._context)
            self._ready.set_result((asyncio.get_running_loop(), jobs))
            await jobs.serve()

    async def _clean_up(self) -> None:
        """Deletes what there may be, after the loop has failed."""
        async with KubernetesApi(self._load_access(), patience_seconds=_CLEAN_UP_PATIENCE_SECONDS) as api:
            await delete_run(api, self._context)

    def _load_access(self) -> ClusterAccess:
        return self._access or load_access(self._context.settings.kubernetes_context, os.environ)
