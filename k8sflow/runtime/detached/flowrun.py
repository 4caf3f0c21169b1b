"""A run's FlowRun from both sides: the laptop hands the run over, the driver in the cluster tells how far it is."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import click

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError, K8sflowError, KubernetesError, RunError
from k8sflow.executors.base import TaskEvent
from k8sflow.flow.decorators.policy import Catch
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.flowrun import Phase, timestamp
from k8sflow.kubernetes.kubeconfig import ClusterAccess, load_access
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.preflight import Permission, is_allowed
from k8sflow.runtime.core.loop import RunResult
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.detached.status import Progress
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskSpec

_PATIENCE_SECONDS = 5.0
_LAST_WORD_PATIENCE_SECONDS = 120.0
_WRITE_SECONDS = 1.0
_TAKEN_UP_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_SIGTERM_EXIT_CODE = 143
_NEEDED = Permission(flowruns.GROUP, flowruns.PLURAL, ("create", "get"))
_INSTALL = "helm install k8sflow charts/k8sflow --namespace k8sflow --create-namespace"


def check(settings: Settings, namespace: str) -> None:
    """Returns when a run can be handed over in the namespace.

    Raises:
        ConfigurationError: There is no kubeconfig, or it is wrong.
        KubernetesError: The CRD or the controller is missing, or FlowRuns may not be created.
    """
    access = load_access(settings.kubernetes_context, os.environ)
    asyncio.run(_check(access, namespace))


def submit(record: RunRecord, settings: Settings, namespace: str, store_url: str) -> None:
    """Creates the run's FlowRun, waits until the controller has taken it up, and tells what can be done now.

    Raises:
        RunError: The controller refuses the run.
        KubernetesError: The FlowRun can't be created.
    """
    access = load_access(settings.kubernetes_context, os.environ)
    manifest = flowruns.flowrun_manifest(record, settings, namespace, store_url)
    status = asyncio.run(_create(access, manifest))
    name, pathspec = manifest["metadata"]["name"], f"{record.flow}/{record.run}"
    if status.get("phase") == Phase.FAILED.value:
        summary, _, rest = str(status.get("message") or "").partition("\n")
        raise RunError(f"the controller refuses {pathspec}: {summary}", advice=rest)
    in_namespace = f"-n {namespace}" + (
        f" --context {settings.kubernetes_context}" if settings.kubernetes_context is not None else ""
    )
    click.echo(f"{pathspec} was handed to the cluster as FlowRun {name}; it runs on without this machine.")
    if not status:
        click.secho(
            f"No controller has taken it up within {_TAKEN_UP_SECONDS:.0f} s. It starts when there is one that watches "
            f"the namespace {namespace}:\n"
            f"  kubectl get deployments --all-namespaces -l app.kubernetes.io/name=k8sflow",
            fg="yellow",
        )
    click.echo(
        f"  how far it is:  kubectl get flowrun {name} {in_namespace}\n"
        f"  its output:     kubectl logs {in_namespace} -f job/{flowruns.driver_job_name(name)}\n"
        f"  cancel it:      kubectl delete flowrun {name} {in_namespace}\n"
        f'  its results:    k8sflow.Flow("{record.flow}")["{record.run}"].data'
    )


def check_service_accounts(placement: Placement, environment: Mapping[str, str]) -> None:
    """Returns when a run's tasks ask for no service account but those that the platform's people allow here.

    Raises:
        RunError: One of them does.
    """
    if (text := environment.get(flowruns.SERVICE_ACCOUNTS_VARIABLE)) is None:
        return
    allowed = text.split(",")
    for step, options in placement.pods.items():
        if options.service_account is not None and options.service_account not in allowed:
            raise RunError(
                f"the step {step} asks for the service account {options.service_account!r}, which is not allowed here.",
                cause=f"Tasks of runs that were handed over may use {', '.join(allowed)}.",
                advice="Leave service_account out, or have it added to the chart's value task.allowedServiceAccounts.",
            )


class FlowRunObserver:
    """Tells of a run in its FlowRun's status: phase and counters, at most once a second, from a thread of its own.

    That the API can't be reached for a while doesn't disturb the run; the end is told with patience.

    Args:
        settings: The settings that hold in the driver's pod.
        namespace: Namespace of the FlowRun.
        name: Its name.

    Raises:
        KubernetesError: There is no such FlowRun (any more), or it can't be read.
    """

    def __init__(self, settings: Settings, namespace: str, name: str) -> None:
        self._access = load_access(settings.kubernetes_context, os.environ)
        self._path = flowruns.object_path(namespace, name)
        found = self._call(lambda api: api.get(self._path), _LAST_WORD_PATIENCE_SECONDS)
        self.owner: Manifest = flowruns.owner_reference(found)
        before: Manifest = found.get("status") or {}
        self._progress = Progress(started_at=before.get("startedAt") or timestamp(time.time()))
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def submitted(self, group: Sequence[TaskSpec]) -> None:
        """Counts tasks that became ready."""
        self._progress.submitted(group)
        self._begin_to_write()

    def done_before(self, tasks: Sequence[TaskSpec]) -> None:
        """Counts tasks that were cloned, or that an earlier driver has seen to the end."""
        self._progress.done_before(tasks)
        self._begin_to_write()

    def event(self, event: TaskEvent) -> None:
        """Counts a task's event."""
        self._progress.event(event)

    def retried(self, task: TaskSpec, result: TaskResult, again: Again) -> None:
        """Takes back a failure that the run doesn't end with."""
        self._progress.retried(task, result, again)

    def caught(self, task: TaskSpec, result: TaskResult, catch: Catch) -> None:
        """Counts a failure that @catch has taken as done."""
        self._progress.caught(task, result, catch)

    def outage(self, text: str, is_over: bool) -> None:  # noqa: FBT001  as ``patience.Report``
        """Shows in the driver's log, and until it is over as the FlowRun's message, that the bucket doesn't answer."""
        click.echo(text)
        self._progress.notice("" if is_over else text)
        self._begin_to_write()

    def interrupted(self) -> None:
        """To be called at the driver's SIGTERM: returns where the run is to be cancelled, and else ends this process.

        Somebody who deletes the FlowRun wants the end of the run. A node that is drained, or a pod that is deleted,
        wants only the end of this driver: the next one goes on from the store, as after ``kill -9``.
        """
        # A signal may come while this thread is in an event loop, so the question is asked in another.
        with ThreadPoolExecutor(1) as pool:
            is_wanted = pool.submit(self._is_wanted).result()
        if is_wanted:
            click.echo("The driver was told to stop; another one goes on with the run.")
            sys.stdout.flush()
            os._exit(_SIGTERM_EXIT_CODE)

    def close(self, result: RunResult | None) -> None:
        """Writes how the run ended: its result, or None where it was cancelled."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        status = self._progress.final_status(result, time.time())
        try:
            self._call(lambda api: self._patch(api, status), _LAST_WORD_PATIENCE_SECONDS)
        except K8sflowError as error:
            if getattr(error, "status", None) == HTTPStatus.NOT_FOUND:
                return  # deleted: there is nobody to tell
            # The store has the outcome, and the exit code tells the controller.
            click.echo(f"The end of the run can't be written into its FlowRun: {error}", err=True)

    def _is_wanted(self) -> bool:
        """Whether the FlowRun is there still; also where nobody can tell."""
        try:
            found = self._call(lambda api: api.get(self._path), _PATIENCE_SECONDS)
        except K8sflowError as error:
            return getattr(error, "status", None) != HTTPStatus.NOT_FOUND
        return not found["metadata"].get("deletionTimestamp") and found["metadata"]["uid"] == self.owner["uid"]

    def _begin_to_write(self) -> None:
        if self._thread is None:  # not before: executors that fork were made by now
            self._thread = threading.Thread(target=self._write_on, name="k8sflow-flowrun", daemon=True)
            self._thread.start()

    def _write_on(self) -> None:
        while not self._closing.is_set():
            try:
                asyncio.run(self._write_while_open())
            except Exception as error:  # noqa: BLE001  the thread's border: else the counters would stand still
                click.echo(f"The FlowRun's status can't be written: {type(error).__name__}: {error}", err=True)
                self._closing.wait(_PATIENCE_SECONDS)

    async def _write_while_open(self) -> None:
        async with KubernetesApi(self._access, patience_seconds=_PATIENCE_SECONDS) as api:
            written: Manifest = {}
            while True:
                status = self._progress.status()
                if status != written:
                    # The next second has newer counters; whoever reads the status is the only one who misses them.
                    with suppress(K8sflowError):
                        await self._patch(api, status)
                        written = status
                if await asyncio.to_thread(self._closing.wait, _WRITE_SECONDS):
                    return

    async def _patch(self, api: KubernetesApi, status: Manifest) -> Manifest:
        return await api.patch(f"{self._path}/status", {"status": status})

    def _call(self, work: Any, patience_seconds: float) -> Manifest:
        async def call() -> Manifest:
            async with KubernetesApi(self._access, patience_seconds=patience_seconds) as api:
                answer: Manifest = await work(api)
                return answer

        return asyncio.run(call())


async def _check(access: ClusterAccess, namespace: str) -> None:
    async with KubernetesApi(access, patience_seconds=_PATIENCE_SECONDS) as api:
        try:
            resources = (await api.get(f"/apis/{flowruns.API_VERSION}"))["resources"]
        except ApiStatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            resources = []
        if not any(resource["name"] == flowruns.PLURAL for resource in resources):
            raise KubernetesError(
                f"the cluster ({access.origin}) has no FlowRuns, so a run can't be handed to it.",
                cause="The k8sflow controller is not installed there.",
                advice=f"Somebody with cluster-admin rights has to install it, from k8sflow's checkout:\n  {_INSTALL}",
            )
        asked = [is_allowed(api, namespace, _NEEDED, verb) for verb in _NEEDED.verbs]
        if not all(await asyncio.gather(*asked)):
            raise KubernetesError(
                f"you may not create and read FlowRuns in the namespace {namespace!r}.",
                cause=f"Asked as {access.origin}.",
                advice="The chart has a Role for it, which a RoleBinding gives to you:\n"
                f"  kubectl create rolebinding k8sflow-user -n {namespace} --role=k8sflow-user --user=YOU",
            )
        await _check_watched(api, namespace)


async def _check_watched(api: KubernetesApi, namespace: str) -> None:
    """Looks for the drivers' service account, which the chart makes wherever its controller looks."""
    account = flowruns.DRIVER_SERVICE_ACCOUNT
    try:
        await api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}")
    except ApiStatusError as error:
        if error.status == HTTPStatus.FORBIDDEN:
            return  # who may only make FlowRuns learns it from whether the FlowRun is taken up
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        raise KubernetesError(
            f"no controller looks after FlowRuns in the namespace {namespace!r}: "
            f"it has no service account {account!r}.",
            advice="Use a namespace that one watches (kubernetes_namespace), or have this one added to it, with those "
            "that it watches already:\n"
            f"  helm upgrade k8sflow charts/k8sflow --namespace k8sflow --reuse-values "
            f"--set 'watchNamespaces={{{namespace}}}'",
        ) from error


async def _create(access: ClusterAccess, manifest: Manifest) -> Manifest:
    """Creates the FlowRun; its first status, or nothing where no controller takes it up in time."""
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    clock = asyncio.get_running_loop().time
    async with KubernetesApi(access) as api:
        found, _ = await api.create(flowruns.collection_path(namespace), manifest)
        deadline = clock() + _TAKEN_UP_SECONDS
        while not found.get("status") and clock() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            found = await api.get(flowruns.object_path(namespace, name))
    status: Manifest = found.get("status") or {}
    return status
