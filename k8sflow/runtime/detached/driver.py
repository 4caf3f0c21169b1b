"""The driver of a detached run: a process in the cluster, which the controller starts."""

from __future__ import annotations

import os
import time
from contextlib import closing

from k8sflow.config import Settings
from k8sflow.executors.base import Executor, Report
from k8sflow.executors.context import KUBERNETES
from k8sflow.executors.kubernetes.requirements import open_bucket
from k8sflow.runtime.commands import exit_hooks
from k8sflow.runtime.commands.display import display, display_end
from k8sflow.runtime.commands.drive import drive
from k8sflow.runtime.commands.interrupts import interrupts
from k8sflow.runtime.core.run_state import RunEnd
from k8sflow.runtime.detached.flowrun import FlowRunObserver, check_service_accounts
from k8sflow.runtime.progress.console import Console
from k8sflow.runtime.session import open_session
from k8sflow.storage.run_store import RunStore


def drive_detached(settings: Settings, flow: str, run_id: str, flowrun: str, console: Console) -> RunEnd:
    """Drives a run whose record is in the bucket: from its start, or from where another driver died.

    The flow's code is not needed: the record holds its graph, and the options of its pods.

    Args:
        settings: The settings of the driver's pod.
        flow: The flow's name.
        run_id: The run's id.
        flowrun: The name of the FlowRun that owns the run.
        console: The driver's log.

    Raises:
        K8sflowError: There is no such run, or it can't continue.
    """
    # An earlier driver, or the process that started the run, has reached the bucket before.
    store = open_bucket(settings, first_seconds=settings.storage_patience)
    observer = FlowRunObserver(settings, settings.kubernetes_namespace, flowrun, console)
    store.report_outages(observer.outage)
    session = open_session(RunStore(store, flow, run_id), settings)
    check_service_accounts(session.placement, os.environ)
    reporter = display(session, console, time.monotonic())
    store.report_outages(observer.outage)

    def executors(report: Report) -> dict[str, Executor]:
        return {KUBERNETES: session.executor(KUBERNETES, report, owner=observer.owner)}

    with interrupts(observer.interrupted), closing(reporter):
        result = drive(session, executors, [reporter, observer], take_over=True, is_new=True)
        if result.end is not RunEnd.CANCELLED:  # a run is cancelled by deleting the owner of the hooks' pods
            exit_hooks.call_in_pods(session, console, observer.owner, is_success=result.is_success)
        observer.close(result)
        display_end(session, reporter, result)
        return result.end
