"""Starts runs: checks what can be checked, writes the run's record, and lets the driver go."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from k8sflow.config import Settings
from k8sflow.errors import ParameterError, RunError
from k8sflow.executors.base import Executor
from k8sflow.executors.local import LocalExecutor
from k8sflow.flow import deployment
from k8sflow.flow import graph as graphs
from k8sflow.flow.attempts import StepPolicy
from k8sflow.flow.configs import ParameterContext, configs
from k8sflow.flow.graph import Graph
from k8sflow.flow.spec import FlowSpec, constants, parameters
from k8sflow.runtime import remote
from k8sflow.runtime.driver import Driver, Observer, Report, RunResult
from k8sflow.runtime.interrupts import interrupts
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress import Reporter, reporter
from k8sflow.runtime.request import RunRequest, flow_file, local_root
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.objects import ObjectStore, open_store
from k8sflow.storage.records import RunRecord, RunStore, current_user, new_run_id
from k8sflow.task.runner import TaskRunner

_RUN_ID = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
LOCAL, KUBERNETES = "local", "kubernetes"


def run(request: RunRequest) -> bool | None:
    """Runs a flow and tells about it; whether it succeeded, or None where the user cancelled it.

    Raises:
        K8sflowError: The run can't be started.
    """
    graph = graphs.build(request.flow)
    placement = Placement.of(request.flow, graph, request.decorators, request.settings)
    _refuse_parallel(graph, placement)
    store, code = _prepare(request, placement, is_handed_over=False)
    record = _create(request, graph, placement, store, code)
    active = _ActiveRun(record, graph, store, placement, request.settings)
    command = f"python {shlex.quote(sys.argv[0])}"
    seen = reporter(request.began, command, f"{record.flow}/{record.run}", list(graph.nodes))

    def executors(report: Report) -> dict[str, Executor]:
        # The local executor forks, so it comes before anything that starts a thread.
        made: dict[str, Executor] = {}
        if len(placement.pods) < len(graph.nodes):
            runner = TaskRunner(request.flow, graph, record, store)
            workers = request.max_workers or os.cpu_count() or 1
            made[LOCAL] = LocalExecutor(report, runner, workers, timeout_of=active.timeout_of)
        if placement.uses_kubernetes:
            made[KUBERNETES] = active.kubernetes(report, request.max_workers)
        return made

    with interrupts(seen.cancelling), closing(seen):
        return _conclude(seen, active, _result(active.driver(executors, [seen]), go_on=False))


def detach(request: RunRequest) -> bool:
    """Hands a run to the controller in the cluster.

    Raises:
        K8sflowError: The run can't be started, or there is no controller.
    """
    from k8sflow.runtime import flowrun  # noqa: PLC0415  only here is the API needed

    graph = graphs.build(request.flow)
    placement = Placement.of(request.flow, graph, request.decorators, request.settings)
    if here := [step for step in graph.nodes if step not in placement.pods]:
        raise RunError(
            f"--detach hands the run to a cluster, but {', '.join(here)} would run on this machine.",
            advice="Add --with kubernetes, which puts every step there.",
        )
    _refuse_parallel(graph, placement)
    flowrun.check(request.settings, placement.namespace)
    store, code = _prepare(request, placement, is_handed_over=True)
    record = _create(request, graph, placement, store, code)
    flowrun.submit(record, request.settings, placement.namespace, store.url)
    return True


def drive(settings: Settings, flow: str, run_id: str, flowrun_name: str) -> bool | None:
    """Drives a run whose record is in the bucket, in the cluster: from its start, or from where a driver died.

    The flow's code is not needed: the record has its graph, and what its pods are asked for.

    Raises:
        K8sflowError: There is no such run, or it can't go on.
    """
    from k8sflow.runtime import flowrun  # noqa: PLC0415  only here is the API needed

    store = remote.open_bucket(settings)
    record = RunStore(store, flow, run_id).read()
    placement = Placement.from_document(record.pods, settings)
    flowrun.check_service_accounts(placement, os.environ)
    active = _ActiveRun(record, Graph.from_document(flow, record.graph), store, placement, settings)
    seen = reporter(time.monotonic(), f"python {shlex.quote(record.file)}", f"{flow}/{run_id}", record.steps)
    observer = flowrun.FlowRunObserver(settings, placement.namespace, flowrun_name)

    def executors(report: Report) -> dict[str, Executor]:
        return {KUBERNETES: active.kubernetes(report, None, owner=observer.owner)}

    with interrupts(observer.interrupted), closing(seen):
        result = _result(active.driver(executors, [seen, observer]), go_on=True)
        observer.close(result)
        return _conclude(seen, active, result)


@dataclass(frozen=True)
class _ActiveRun:
    """A run that is being driven here."""

    record: RunRecord
    graph: Graph
    store: ObjectStore
    placement: Placement
    settings: Settings

    def kubernetes(self, report: Report, max_jobs: int | None, owner: dict[str, Any] | None = None) -> Executor:
        """The executor for the steps on Kubernetes."""
        return remote.executor(report, self.record, self.store, self.placement, self.settings, max_jobs, owner)

    @cached_property
    def policies(self) -> dict[str, StepPolicy]:
        """Retries, timeout and catch, by step."""
        return {step: StepPolicy.from_document(found) for step, found in self.record.policies.items()}

    def timeout_of(self, step: str) -> float | None:
        """How many seconds an execution of a step's task may take; None for any time."""
        return self.policies[step].timeout_seconds if step in self.policies else None

    def driver(self, executors: Callable[[Report], Mapping[str, Executor]], observers: Sequence[Observer]) -> Driver:
        """The run's driver."""
        return Driver(
            self.graph,
            RunStore(self.store, self.record.flow, self.record.run),
            executors=executors,
            executor_of=lambda step: KUBERNETES if step in self.placement.pods else LOCAL,
            observers=observers,
            policies=self.policies,
        )


def _refuse_parallel(graph: Graph, placement: Placement) -> None:
    """Pods don't know each other's addresses yet.

    Raises:
        RunError: A step under @parallel would run on Kubernetes.
    """
    if found := [node for node in graph.nodes.values() if node.is_parallel and node.name in placement.pods]:
        raise RunError(
            f"step {found[0].name} ({found[0].place}) is under @parallel, which runs on this machine alone, "
            f"but it would run on Kubernetes.",
            advice="Run the flow without --with kubernetes, with @kubernetes on its other steps; or let the step be "
            "one pod with more cores, and use parallel_map in it.",
        )


def _result(driver: Driver, *, go_on: bool) -> RunResult | None:
    """How the run ended; None where it was cancelled."""
    try:
        return driver.run(go_on=go_on)
    except KeyboardInterrupt:
        return None


def _prepare(
    request: RunRequest, placement: Placement, *, is_handed_over: bool
) -> tuple[ObjectStore, package.Package | None]:
    """The run's store and its code package, after the checks that need nothing to be written."""
    if request.run_id is not None and not _RUN_ID.fullmatch(request.run_id):
        raise RunError(
            f"{request.run_id!r} can't be a run's id.",
            advice="Use at most 63 of: lower-case letters, digits, - and . (letters or digits first and last).",
        )
    if request.run_id_file is not None:
        _check_run_id_file(Path(request.run_id_file))
    if not placement.uses_kubernetes:
        return open_store(str(local_root(request.flow, request.settings))), None
    store = remote.check(request.settings, placement, is_handed_over=is_handed_over)
    return store, package.build(flow_file(request.flow).parent)


def _create(
    request: RunRequest, graph: Graph, placement: Placement, store: ObjectStore, code: package.Package | None
) -> RunRecord:
    """Writes what was asked for; from here on the run exists."""
    flow = request.flow
    artifacts = ArtifactStore(store, flow.__name__)
    if code is not None:
        artifacts.save_blob(code.sha256, [code.archive])
    record = RunRecord(
        flow=flow.__name__,
        run=request.run_id or new_run_id(),
        file=flow_file(flow).name,
        parameters=_fixed_values(flow, request.values, artifacts),
        graph=graph.to_document(),
        pods=placement.to_document(),
        flow_decorators=deployment.documents(flow, current_user(), request.branch, request.production),
        policies={step: policy.to_document() for step, policy in placement.policies.items()},
        package=code.sha256 if code is not None else None,
        user=current_user(),
        created=time.time(),
        tags=request.tags,
        decorators=request.decorators,
    )
    RunStore(store, record.flow, record.run).create(record)
    if request.run_id_file is not None:
        _write_run_id(Path(request.run_id_file), record.run)
    return record


def _fixed_values(
    flow: type[FlowSpec], values: Mapping[str, object], artifacts: ArtifactStore
) -> dict[str, ArtifactRef]:
    """The parameters, configs and constants, saved once for all tasks."""
    fixed = dict(constants(flow))
    known = {name: config.k8sflow_value() for name, config in configs(flow).items()}
    fixed |= known
    kind = "s3" if artifacts.url.startswith("s3://") else "local"
    for attribute, parameter in parameters(flow).items():
        value = values.get(attribute)
        if value is None:
            context = ParameterContext(flow.__name__, current_user(), parameter.name, ds_type=kind, configs=known)
            value = parameter.default_value(context)
        if value is None and parameter.required:
            raise ParameterError(f"Parameter {parameter.name!r} is required.", advice=f"Give --{parameter.name}.")
        fixed[attribute] = value
    return {name: artifacts.save(value, name) for name, value in fixed.items()}


def _check_run_id_file(path: Path) -> None:
    """Makes sure that the run's id can be written, while no run exists that would be left behind."""
    folder = path.absolute().parent
    if not os.access(path if path.exists() else folder, os.W_OK):
        why = "it may not be written" if folder.is_dir() else f"there is no folder {folder}"
        raise RunError(f"the run's id can't be written to {path}: {why}.")


def _write_run_id(path: Path, run_id: str) -> None:
    try:
        path.write_text(f"{run_id}\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"the run's id can't be written to {path}: {error.strerror}.") from error


def _conclude(seen: Reporter, run: _ActiveRun, result: RunResult | None) -> bool | None:
    """Prints the last lines; returns what the exit code follows from."""
    flow, run_id = run.record.flow, run.record.run
    pathspec = f"{flow}/{run_id}"
    if result is None:
        seen.summary(pathspec, "was cancelled", "", good=False)
        return None
    if result.failed is not None and result.result is not None:
        seen.failure(result.failed, result.result)
        seen.summary(pathspec, "failed", "", good=False)
        return False
    seen.summary(pathspec, "succeeded", f'Results: k8sflow.Flow("{flow}")["{run_id}"].data', good=True)
    return True
