"""``kubernetes list``, ``kill`` and ``describe``: the runs of a flow as the cluster has them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, NotFoundError, RunError, StorageError
from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes import flowrun, labels
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.kubeconfig import load_access
from k8sflow.kubernetes.live import LiveTask, live_tasks
from k8sflow.kubernetes.names import owner_name
from k8sflow.kubernetes.preflight import check_namespace
from k8sflow.runtime.commands.cancelling import ended_by_driver
from k8sflow.runtime.lookup import Runs, runs_of
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.storage.records import CancelRequest
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user

_PATIENCE_SECONDS = 10.0
_READ_AT_ONCE = 16
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class OnCluster:
    """The runs of a flow, in the cluster and in the bucket.

    Args:
        settings: The settings.
        namespace: The namespace in which they are looked for.
        runs: The records of the runs.
    """

    settings: Settings
    namespace: str
    runs: Runs

    @staticmethod
    def of(declared: FlowDefinition, settings: Settings) -> OnCluster:
        """The runs of a flow's file, in the namespace of its ``@kubernetes`` or else of the settings."""
        namespace = Placement.of(checked(declared), (), settings).namespace
        return OnCluster(settings, namespace, runs_of(declared.flow, settings))

    @property
    def flow(self) -> str:
        """The flow's name."""
        return self.runs.flow

    def ask(self, work: Callable[[KubernetesApi], Coroutine[Any, Any, _Result]]) -> _Result:
        """Does something with the API server.

        Raises:
            ConfigurationError: There is no kubeconfig.
            KubernetesError: The server can't be reached, or refuses.
        """
        access = load_access(self.settings.kubernetes_context, os.environ)

        async def run() -> _Result:
            async with KubernetesApi(access, patience_seconds=_PATIENCE_SECONDS) as api:
                return await work(api)

        return asyncio.run(run())

    def tasks(self, run: str | None = None) -> list[LiveTask]:
        """The tasks that have Jobs, also finished ones; of one run or of all.

        Raises:
            KubernetesError: The namespace doesn't exist, or its Jobs may not be listed.
        """
        namespace = self.namespace if run is None else self.namespace_of(self.runs[run])

        async def listed(api: KubernetesApi) -> list[LiveTask]:
            found = await live_tasks(api, namespace, self.flow, run)
            if not found:  # as the API answers for a namespace that doesn't exist too
                await check_namespace(api, namespace)
            return found

        return self.ask(listed)

    def namespace_of(self, run: RunStore) -> str:
        """The namespace of a run's Jobs."""
        return Placement.of_record(run.read(), self.settings).namespace

    def users(self, runs: set[str]) -> dict[str, str]:
        """The users who started some runs; without those that aren't in the bucket of the settings."""

        def user(run: str) -> tuple[str, str | None]:
            try:
                return run, self.runs[run].read().user
            except (NotFoundError, RunError, StorageError):
                return run, None

        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            return {run: name for run, name in pool.map(user, sorted(runs)) if name is not None}


def selected(cluster: OnCluster, run: str | None, user: str | None, *, ended: bool) -> list[LiveTask]:
    """The tasks that a person asks for.

    Args:
        cluster: The flow's runs.
        run: The run, ``run`` or ``flow/run``; None for all.
        user: Who started the runs; None for everybody.
        ended: Whether tasks that are over, and whose Jobs are kept for a while, count too.

    Raises:
        NotFoundError: There is no such run.
    """
    tasks = cluster.tasks(cluster.runs.named(run).run if run is not None else None)
    tasks = [task for task in tasks if ended or not task.is_over]
    if user is None:
        return tasks
    users = cluster.users({task.run for task in tasks})
    return [task for task in tasks if users.get(task.run) == user]


def runs_to_kill(cluster: OnCluster, run: str | None, user: str | None) -> list[RunStore]:
    """The runs that a person asks to end: one, or all of a user that have unfinished Jobs.

    Args:
        cluster: The flow's runs.
        run: The run; None for the user's own latest one, unless a user is named.
        user: Whose runs.

    Raises:
        NotFoundError: There is no such run.
        RunError: It has ended.
    """
    if user is not None:
        return [
            cluster.runs[name] for name in sorted({task.run for task in selected(cluster, None, user, ended=False)})
        ]
    found = cluster.runs.named(run) if run is not None else cluster.runs.latest_own()
    outcome = found.read_run_outcome()
    if outcome is not None:
        raise RunError(
            f"{found.pathspec} is over: it {'succeeded' if outcome.outcome is Outcome.SUCCEEDED else 'has ended'}.",
            advice="`kubernetes list` shows the runs that have unfinished Jobs.",
        )
    if not found.read().pods:
        raise RunError(f"no step of {found.pathspec} runs on Kubernetes.", advice="Press Ctrl-C where it is driven.")
    return [found]


def kill(cluster: OnCluster, run: RunStore, console: Console) -> None:
    """Ends a run: its driver is asked to cancel it, and its Jobs are deleted; without a driver, it is marked.

    Raises:
        KubernetesError: The Jobs may not be deleted, or the cluster is another one, without the run's namespace.
        RunError: Its driver doesn't answer.
    """
    request = CancelRequest(current_user(), socket.gethostname(), time.time())
    is_detached, namespace = run.read().is_detached, cluster.namespace_of(run)
    cluster.ask(lambda api: check_namespace(api, namespace))
    run.request_cancel(request)
    cluster.ask(lambda api: _delete(api, namespace, run, is_detached=is_detached))
    if ended_by_driver(run, request, is_detached=is_detached):
        console.say(f"{run.pathspec} was {request.summary}; its Jobs are deleted.", Tone.GOOD)
        return
    console.say(f"{run.pathspec} had no driver; it is marked as cancelled, and its Jobs are deleted.", Tone.GOOD)


async def _delete(api: KubernetesApi, namespace: str, run: RunStore, *, is_detached: bool) -> None:
    """Deletes what a run has in the cluster: the FlowRun of a detached one, which owns the rest."""
    name = owner_name(flow=run.flow, run=run.run)
    if is_detached:
        await api.delete(flowrun.object_path(namespace, name))
        return
    selector = labels.run_selector(run.flow, run.run)
    await api.delete(f"/apis/batch/v1/namespaces/{namespace}/jobs", label_selector=selector)
    try:
        await api.delete(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
    except ApiStatusError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise  # else it is empty, and harms nobody
