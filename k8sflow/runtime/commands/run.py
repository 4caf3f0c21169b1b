"""Starts runs: checks what can be checked, writes the run's record, and lets the driver go."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from k8sflow.config import Settings
from k8sflow.errors import ArtifactError, ParameterError, RunError
from k8sflow.executors.base import Executor
from k8sflow.flow.compile import checked
from k8sflow.flow.configs import ParameterContext
from k8sflow.flow.decorators.flow_level import documents, only_deployed
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.runtime import remote
from k8sflow.runtime.commands import id_files
from k8sflow.runtime.commands.attach import drive_or_follow
from k8sflow.runtime.commands.clone import clone
from k8sflow.runtime.commands.interrupts import interrupts
from k8sflow.runtime.core.loop import Report
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.request import RunRequest, code_file, code_folder, local_root
from k8sflow.runtime.session import KUBERNETES, ActiveRun
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open import open_store
from k8sflow.storage.records import RunRecord, new_run_id, python_version
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user
from k8sflow.version import VERSION

_RUN_ID = "the run's id"
_RUN_ID_PATTERN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


def run(request: RunRequest) -> bool | None:
    """Starts a flow, and tells about it as long as it is driven here; returns as ``begin``.

    Raises:
        K8sflowError: The run can't be started.
    """
    definition = checked(request.definition)
    tell_of_deployment(definition)
    placement = Placement.of(definition, request.decorators, request.settings)
    check_places(request, definition.graph, placement)
    store, code = prepare(request, placement)
    record = create(request, definition, placement, store, code)
    return begin(request, definition, ActiveRun(record, definition.graph, store, placement, request.settings))


def tell_of_deployment(definition: FlowDefinition) -> None:
    """Says once which decorators of the flow do nothing in a run that a person starts."""
    if found := only_deployed(definition.decorations):
        names = " and ".join(f"@{name}" for name in found)
        verb = "takes" if len(found) == 1 else "take"
        click.secho(f"{names} {verb} effect in a deployment only: this run starts now, and no other one by itself.",
                    fg="yellow", err=True)  # fmt: skip


def begin(request: RunRequest, definition: FlowDefinition, active: ActiveRun) -> bool | None:
    """Lets a run go whose record was just written.

    Returns:
        Whether it succeeded, or the controller has it; None where the user cancelled it.

    Raises:
        K8sflowError: It can't go, or the controller refuses it.
    """
    if not request.is_detached:
        is_clone = active.record.origin_run_id is not None
        return drive_or_follow(active, definition, request.max_workers, request.began, go_on=is_clone)
    from k8sflow.runtime.detached import flowrun  # noqa: PLC0415  only here is the API needed

    flowrun.submit(active.record, request.settings, active.placement.namespace, active.store.url)
    return True


def drive(settings: Settings, flow: str, run_id: str, flowrun_name: str) -> bool | None:
    """Drives a run whose record is in the bucket, in the cluster: from its start, or from where a driver died.

    The flow's code is not needed: the record has its graph, and what its pods are asked for.

    Raises:
        K8sflowError: There is no such run, or it can't go on.
    """
    from k8sflow.runtime.detached import flowrun  # noqa: PLC0415  only here is the API needed

    # An earlier driver, or the process that started the run, has had answers from the bucket.
    store = remote.open_bucket(settings, first_seconds=settings.storage_patience)
    observer = flowrun.FlowRunObserver(settings, settings.kubernetes_namespace, flowrun_name)
    store.report_outages(observer.outage)
    record = RunStore(store, flow, run_id).read()
    placement = Placement.from_document(record.pods, settings)
    flowrun.check_service_accounts(placement, os.environ)
    active = ActiveRun(record, Graph.from_document(flow, record.graph), store, placement, settings)
    seen = active.reporter(time.monotonic())
    store.report_outages(observer.outage)

    def executors(report: Report) -> dict[str, Executor]:
        return {KUBERNETES: active.kubernetes(report, None, owner=observer.owner)}

    with interrupts(observer.interrupted), closing(seen):
        try:
            if record.origin_run_id is not None:
                clone(active)
            result = active.driver(executors, [seen, observer]).run(go_on=True)
        except KeyboardInterrupt:
            result = None
            active.note_cancelled()
        if result is not None:  # a run is cancelled by deleting what would own the hooks' pods
            active.call_exit_hooks_in_pods(observer.owner, is_success=result.is_success)
        observer.close(result)
        return active.conclude(seen, result)


def check_places(request: RunRequest, graph: Graph, placement: Placement) -> None:
    """Returns when the steps can run where they are to: pods don't know each other's addresses, and a cluster us.

    Raises:
        RunError: A step under @parallel would run on Kubernetes, or one of a run that is handed over on this machine.
    """
    if request.is_detached and (here := [step for step in graph.nodes if step not in placement.pods]):
        raise RunError(
            f"--detach hands the run to a cluster, but {', '.join(here)} would run on this machine.",
            advice="Add --with kubernetes, which puts every step there.",
        )
    if found := [node for node in graph.nodes.values() if node.is_parallel and node.name in placement.pods]:
        raise RunError(
            f"step {found[0].name} ({found[0].location}) is under @parallel, which runs on this machine alone, "
            f"but it would run on Kubernetes.",
            advice="Run the flow without --with kubernetes, with @kubernetes on its other steps; or let the step be "
            "one pod with more cores, and use parallel_map in it.",
        )


def prepare(
    request: RunRequest, placement: Placement, origin: ObjectStore | None = None
) -> tuple[ObjectStore, package.Package | None]:
    """The run's store and its code package, after the checks that need nothing to be written.

    Args:
        request: What the user asks for.
        placement: Where the steps run.
        origin: The store of the run that this one resumes, in which it has to be too.

    Raises:
        K8sflowError: The run can't be started.
    """
    check_names(request, origin)
    if not placement.uses_kubernetes:
        return origin or open_store(str(local_root(request.flow, request.settings))), None
    if request.is_detached:
        from k8sflow.runtime.detached import flowrun  # noqa: PLC0415  only here is the API needed

        flowrun.check(request.settings, placement.namespace)
    store = remote.check(request.settings, placement, is_handed_over=request.is_detached)
    if origin is not None and origin.url != store.url:
        raise RunError(
            f"a run on Kubernetes is in {store.url}, but the run that it is to resume is in {origin.url}.",
            cause="A run and the one that it resumes share their artifacts, which pods read from the bucket.",
            advice="Resume it on this machine, without --with kubernetes, or start it again with run.",
        )
    return store, package.build(code_folder(request.flow))


def check_names(request: RunRequest, store: ObjectStore | None = None) -> None:
    """Refuses an id that can't be one, or is taken in the store, and a file that it can't be written to.

    Raises:
        RunError: That is so.
    """
    if request.run_id is not None and not _RUN_ID_PATTERN.fullmatch(request.run_id):
        raise RunError(
            f"{request.run_id!r} can't be a run's id.",
            advice="Use at most 63 of: lower-case letters, digits, - and . (letters or digits first and last).",
        )
    if request.run_id is not None and store is not None:
        RunStore(store, request.flow.__name__, request.run_id).refuse_existing()
    if request.run_id_file is not None:
        id_files.check(Path(request.run_id_file), _RUN_ID)


def create(
    request: RunRequest,
    definition: FlowDefinition,
    placement: Placement,
    store: ObjectStore,
    code: package.Package | None,
    *,
    origin: RunRecord | None = None,
    origin_step: str | None = None,
) -> RunRecord:
    """Writes what was asked for; from here on the run exists.

    Args:
        request: What the user asks for.
        definition: The flow.
        placement: Where the steps run.
        store: Where the run is.
        code: The code for its pods.
        origin: The run that this one resumes, whose parameters it has.
        origin_step: The step from which on everything runs again.
    """
    flow = request.flow
    artifacts = ArtifactStore(store, flow.__name__)
    if code is not None:
        artifacts.save_blob(code.sha256, [code.archive])
    record = RunRecord(
        flow=flow.__name__,
        run=request.run_id or new_run_id(),
        file=code_file(flow),
        parameters=fixed_values(definition, request.values, artifacts, origin.parameters if origin else {}),
        graph=definition.graph.to_document(),
        pods=placement.to_document(),
        flow_decorators=documents(
            definition.name, definition.decorations, current_user(), request.branch, request.production
        ),
        policies={step: policy.to_document() for step, policy in placement.policies.items()},
        package=code.sha256 if code is not None else None,
        user=current_user(),
        created=time.time(),
        tags=request.tags,
        decorators=request.decorators,
        source=str(code_folder(flow) / code_file(flow)),
        python_version=python_version(),
        k8sflow_version=VERSION,
        namespace=request.namespace or "",
        origin_run_id=origin.run if origin else None,
        origin_step=origin_step,
        is_detached=request.is_detached,
        max_num_splits=request.max_num_splits,
        modules=package.modules(code_folder(flow)),
        code_hashes=package.code_hashes(code_folder(flow), code_file(flow)),
    )
    RunStore(store, record.flow, record.run).create(record)
    if request.run_id_file is not None:
        id_files.write(Path(request.run_id_file), _RUN_ID, record.run)
    return record


def fixed_values(
    definition: FlowDefinition,
    values: Mapping[str, object],
    artifacts: ArtifactStore,
    known_values: Mapping[str, ArtifactRef],
) -> dict[str, ArtifactRef]:
    """The parameters, configs and constants, saved once for all tasks.

    Args:
        definition: The flow.
        values: The parameters' values, by attribute.
        artifacts: Where they are saved.
        known_values: Parameters of an earlier run, which stay as they are.

    Raises:
        ParameterError: A parameter has no value.
    """
    fixed: dict[str, Any] = dict(definition.configs)
    known = dict(fixed)
    kind = "s3" if artifacts.url.startswith("s3://") else "local"
    found = {name: known_values[name] for name in definition.parameters if name in known_values}
    for attribute, parameter in definition.parameters.items():
        if attribute in found:
            continue
        value = values.get(attribute)
        if value is None:
            context = ParameterContext(definition.name, current_user(), parameter.name, ds_type=kind, configs=known)
            value = parameter.default_value(context)
        if value is None and parameter.required:
            raise ParameterError(f"Parameter {parameter.name!r} is required.", advice=f"Give --{parameter.name}.")
        fixed[attribute] = value
    found |= {name: _saved_constant(name, value, artifacts) for name, value in definition.constants.items()}
    return {**{name: artifacts.save(value, name) for name, value in fixed.items()}, **found}


def _saved_constant(name: str, value: object, artifacts: ArtifactStore) -> ArtifactRef:
    try:
        return artifacts.save(value, name)
    except ArtifactError as error:
        raise ArtifactError(
            f"the class's constant {name!r} can't be kept with the run: {error.summary}",
            cause=error.cause,
            advice=f"Call it _{name}: what begins with _ stays with the class, and is no part of the run.",
        ) from error
