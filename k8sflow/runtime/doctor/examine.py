"""All checks of ``k8sflow doctor``, in the order in which one depends on another."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from k8sflow.config import Settings
from k8sflow.errors import K8sflowError
from k8sflow.executors.bucket import open_bucket, server_of
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.kubeconfig import ClusterAccess, load_access
from k8sflow.kubernetes.preflight import PATIENCE_SECONDS
from k8sflow.runtime.doctor import cluster, machine
from k8sflow.runtime.doctor.checklist import ChecklistRow, Section, Status
from k8sflow.runtime.doctor.in_pod import trials_in_pod
from k8sflow.storage.probe import Trial, server_url, skew, trials

_BUCKET = Section("Bucket")


def examine(settings: Settings, folder: Path, *, with_pod: bool, timeout_seconds: float) -> Iterator[ChecklistRow]:
    """The checklist, row by row.

    Args:
        settings: The settings.
        folder: Where they were searched.
        with_pod: Whether the bucket is tried from inside a pod too.
        timeout_seconds: How long that pod may take.
    """
    yield from machine.rows(settings, folder)
    try:
        access = load_access(settings.kubernetes_context, os.environ)
    except K8sflowError as error:
        if settings.batch_queue:
            yield cluster.SECTION.skipped("kubeconfig", f"{error.summary} Runs on AWS Batch need none.")
        else:
            yield cluster.SECTION.failed("kubeconfig", error)
        yield from _batch(settings)
        yield from _bucket(settings)
        return
    is_usable = True
    for row in asyncio.run(_cluster(access, settings)):
        is_usable = is_usable and row.status is not Status.FAILED
        yield row
    yield from _batch(settings)
    yield from _bucket(settings)
    if not with_pod:
        return
    if is_usable and settings.bucket:
        yield from asyncio.run(_in_pod(access, settings, timeout_seconds))
    else:
        yield _BUCKET.skipped("from a pod", "not tried: correct the failures above first")


async def _cluster(access: ClusterAccess, settings: Settings) -> list[ChecklistRow]:
    async with KubernetesApi(access, patience_seconds=PATIENCE_SECONDS) as api:
        try:
            return [row async for row in cluster.rows(api, settings)]
        except K8sflowError as error:
            return [cluster.SECTION.failed("API server", error)]


def _batch(settings: Settings) -> Iterator[ChecklistRow]:
    if settings.batch_queue:
        from k8sflow.runtime.doctor import on_batch  # noqa: PLC0415  few users have AWS Batch

        yield from on_batch.rows(settings)


def _bucket(settings: Settings) -> Iterator[ChecklistRow]:
    title = "from here"
    try:
        store = open_bucket(settings)
    except K8sflowError as error:
        yield _BUCKET.failed(title, error)
        return
    yield from _rows(title, f"{store.url} at {server_of(settings)}", [*trials(store), skew(server_url(settings))])
    store.close()


async def _in_pod(access: ClusterAccess, settings: Settings, timeout_seconds: float) -> list[ChecklistRow]:
    title = "from a pod"
    where = f"{settings.bucket_url} at {server_of(settings, in_cluster=True)}"
    async with KubernetesApi(access, patience_seconds=PATIENCE_SECONDS) as api:
        try:
            return list(_rows(title, where, await trials_in_pod(api, settings, timeout_seconds)))
        except K8sflowError as error:
            return [_BUCKET.failed(title, error)]


def _rows(title: str, where: str, found: list[Trial]) -> Iterator[ChecklistRow]:
    """One row for what worked, and one for each failure."""
    worked = [
        f"{trial.name} {trial.milliseconds} ms" if trial.milliseconds else trial.name
        for trial in found
        if not trial.failure
    ]
    failed = [trial for trial in found if trial.failure]
    if not failed:
        yield _BUCKET.ok(title, f"{where}: {', '.join(worked)}")
    for trial in failed:
        yield _BUCKET.failed(title, K8sflowError(f"{trial.name}: {trial.failure}", advice=trial.advice))
