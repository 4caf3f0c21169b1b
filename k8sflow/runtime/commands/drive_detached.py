"""The driver of a detached run: a process in the cluster, which the controller starts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing

from k8sflow.config import Settings
from k8sflow.errors import RunError
from k8sflow.executors.base import Executor, Report
from k8sflow.executors.bucket import open_bucket
from k8sflow.executors.by_name import KUBERNETES
from k8sflow.flow.decorators.pod_options import GUARDED
from k8sflow.kubernetes.flowrun import OPTIONS_VARIABLE, SERVICE_ACCOUNTS_VARIABLE
from k8sflow.runtime.commands import exit_hooks
from k8sflow.runtime.commands.display import display, display_end
from k8sflow.runtime.commands.drive import drive
from k8sflow.runtime.commands.interrupts import interrupts
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.detached.status import FlowRunStatus
from k8sflow.runtime.placement import Placement
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
    status = FlowRunStatus(settings, settings.kubernetes_namespace, flowrun, console)
    store.report_outages(status.outage)
    session = open_session(RunStore(store, flow, run_id), settings)
    check_pods(session.placement, os.environ)
    reporter = display(session, console, time.monotonic())
    store.report_outages(status.outage)

    def executors(report: Report) -> dict[str, Executor]:
        return {KUBERNETES: session.executor(KUBERNETES, report, owner=status.owner, notice=status.outage)}

    with interrupts(status.interrupted), closing(reporter), status.showing(reporter.tally):
        result = drive(session, executors, reporter, take_over=True, is_new=True)
        if result.end is not RunEnd.CANCELLED:  # a run is cancelled by deleting the owner of the hooks' pods
            exit_hooks.call_in_pods(session, console, status.owner, is_success=result.is_success)
        status.close(result)
        display_end(session, reporter, result)
        return result.end


def check_pods(placement: Placement, environment: Mapping[str, str]) -> None:
    """Refuses pods with a service account or an option that the administrators of the cluster don't allow.

    Raises:
        RunError: A step has one.
    """
    if (text := environment.get(SERVICE_ACCOUNTS_VARIABLE)) is None:
        return
    accounts, allowed = text.split(","), environment.get(OPTIONS_VARIABLE, "").split(",")
    for step, options in placement.pods.items():
        if options.service_account is not None and options.service_account not in accounts:
            raise RunError(
                f"the step {step} asks for the service account {options.service_account!r}, which is not allowed here.",
                cause=f"Tasks of detached runs may use {', '.join(accounts)}.",
                advice="Leave service_account out, or have it added to the chart's value task.allowedServiceAccounts.",
            )
        if found := [name for name in GUARDED if getattr(options, name) is not None and name not in allowed]:
            raise RunError(
                f"the step {step} has the option {found[0]}, which is not allowed in detached runs here.",
                cause="Their pods are made with the rights of the driver, not with yours.",
                advice=f"Run it without --detach, or have {found[0]} added to the chart's value task.allowedOptions.",
            )
