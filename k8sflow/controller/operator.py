"""The shell around the worker: kopf's watches feed it, kopf's liveness probe checks it.

Only raw events are handled, so kopf never writes to an object: no finalizers (a FlowRun can be deleted while no
controller is running) and no annotations.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import kopf

from k8sflow import debug_log
from k8sflow.config import Settings, load_here
from k8sflow.controller.control_loop import ControlLoop
from k8sflow.controller.flowrun_policy import Policy
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.kubeconfig import load_access

_PATIENCE_SECONDS = 15.0
_PAGE = 500
_REFRESH_SECONDS = 300.0
_WATCH_SECONDS = 290  # kopf sends it unchanged, and the API server only accepts whole seconds
_DRIVERS = f"{flowruns.COMPONENT}={flowruns.DRIVER_COMPONENT}"


def run(policy: Policy, namespaces: Sequence[str], port: int) -> None:
    """Runs the controller until it gets a signal to stop.

    Args:
        policy: How drivers are created.
        namespaces: Namespaces to watch for FlowRuns.
        port: Port of the liveness probe, ``/healthz``.
    """
    configure_logging(load_here())
    kopf.run(
        registry=_registry(policy),
        standalone=True,
        namespaces=list(namespaces),
        liveness_endpoint=f"http://0.0.0.0:{port}/healthz",
    )


def configure_logging(settings: Settings) -> None:
    """Logs JSON, one object per line, from the level in the settings (kopf's own loggers from INFO)."""
    kopf.configure(verbose=False)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter())
    for chatter in ("aiohttp.access", "kopf.activities.probe"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    debug_log.configure(settings)


class JsonFormatter(logging.Formatter):
    """Formats records as JSON with the logger's name, which kopf's own formatter leaves out."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        document = {
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "severity": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def _registry(policy: Policy) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    life = _Life(policy)
    kopf.on.login(registry=registry)(_login)
    kopf.on.startup(registry=registry)(life.start)
    kopf.on.cleanup(registry=registry)(life.stop)
    kopf.on.probe(registry=registry, id="worker")(life.probe)
    kopf.on.event(flowruns.GROUP, flowruns.VERSION, flowruns.PLURAL, registry=registry)(life.flowrun_event)
    kopf.on.event("batch", "v1", "jobs", registry=registry)(life.job_event)
    kopf.on.event("", "v1", "pods", registry=registry)(life.pod_event)
    return registry


class _Life:
    """The lifetime of the worker and its client, from the operator's start to its end."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._stack = contextlib.AsyncExitStack()

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        api = KubernetesApi(load_access(None, os.environ), patience_seconds=_PATIENCE_SECONDS)
        self._worker = ControlLoop(await self._stack.enter_async_context(api), self._policy, time.time)
        self._tasks = [
            asyncio.create_task(self._worker.run()),
            asyncio.create_task(self._worker.refresh(_REFRESH_SECONDS)),
        ]

    async def stop(self, **_: Any) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    def probe(self, **_: Any) -> str:
        if any(task.done() for task in self._tasks):
            raise RuntimeError("the worker has ended")
        return "alive"

    async def flowrun_event(self, event: kopf.RawEvent, **_: Any) -> None:
        self._worker.flowrun_changed(_object(event), is_deleted=_is_deleted(event))

    async def job_event(self, event: kopf.RawEvent, **_: Any) -> None:
        self._worker.job_changed(_object(event), is_deleted=_is_deleted(event))

    async def pod_event(self, event: kopf.RawEvent, **_: Any) -> None:
        self._worker.pod_changed(_object(event), is_deleted=_is_deleted(event))


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.posting.enabled = False
    settings.scanning.disabled = True  # the chart installs the CRD; watching all CRDs would need a ClusterRole
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.connect_timeout = 10.0
    settings.watching.chunk_size = _PAGE
    # The API server filters out the pods of tasks, of which there may be thousands.
    settings.watching.label_selectors["jobs"] = _DRIVERS
    settings.watching.label_selectors["pods"] = _DRIVERS


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def _object(event: kopf.RawEvent) -> dict[str, Any]:
    return dict(event["object"])


def _is_deleted(event: kopf.RawEvent) -> bool:
    return event["type"] == "DELETED"
