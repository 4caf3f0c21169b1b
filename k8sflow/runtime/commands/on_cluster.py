"""``kubernetes list``, ``kill`` and ``describe``: the runs of a flow as the cluster has them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

from k8sflow.config import Settings
from k8sflow.errors import ApiStatusError
from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition
from k8sflow.kubernetes import flowrun, labels
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.kubeconfig import load_access
from k8sflow.kubernetes.live import LiveTask, live_tasks
from k8sflow.kubernetes.names import owner_name
from k8sflow.kubernetes.preflight import check_namespace
from k8sflow.runtime.lookup import Runs, runs_of
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore

_PATIENCE_SECONDS = 10.0
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
    system: ClassVar[str] = "Kubernetes"
    command: ClassVar[str] = "kubernetes"
    fate: ClassVar[str] = "its Jobs are deleted"

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

    def work(self, run: str | None = None) -> list[LiveTask]:
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

    def has_steps(self, record: RunRecord) -> bool:
        """True if a step of the run has pods."""
        return bool(record.pods)

    def check(self, run: RunStore) -> None:
        """Checks that the run's namespace is there.

        Raises:
            KubernetesError: The cluster is another one, without the namespace, or can't be reached.
        """
        self.ask(lambda api: check_namespace(api, self.namespace_of(run)))

    def end(self, run: RunStore) -> None:
        """Deletes the run's Jobs.

        Raises:
            KubernetesError: They may not be deleted.
        """
        is_detached = run.read().is_detached
        self.ask(lambda api: _delete(api, self.namespace_of(run), run, is_detached=is_detached))


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
