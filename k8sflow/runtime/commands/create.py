"""Creates a run: checks what can be checked before anything is written, and writes the run's record."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8sflow import metaflow_modules
from k8sflow.environments.lock import Lock
from k8sflow.errors import ArtifactError, PackageError, ParameterError, RunError
from k8sflow.executors.by_name import LOCAL, check_local
from k8sflow.flow.configs import ParameterContext
from k8sflow.flow.decorators.flow_level import documents
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.commands import id_files
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.pod_sizes import requested
from k8sflow.runtime.preflight import check_systems
from k8sflow.runtime.request import RunRequest, code_file, code_folder, code_package, local_root
from k8sflow.runtime.session import Session
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.exclusive_writes import check_exclusive
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import store_of
from k8sflow.storage.patience import Patience
from k8sflow.storage.records import RunRecord, new_run_id, python_version
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user
from k8sflow.version import VERSION

if TYPE_CHECKING:
    from k8sflow.kubernetes.findings import Finding

_RUN_ID = "the run's id"
_RUN_ID_PATTERN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Prepared:
    """The checked ground for a new run.

    Args:
        store: The store in which it will be.
        code: The code, for its pods and for readers on other machines; None for a run in a folder.
        warnings: What may make it wait on the cluster, or is missing in the bucket.
        environments: The locked packages of the steps with an environment of their own, by step.
    """

    store: ObjectStore
    code: package.Package | None = None
    warnings: Sequence[Finding | str] = ()
    environments: Mapping[str, Lock] = field(default_factory=dict)


def check_executors(request: RunRequest, definition: FlowDefinition, placement: Placement) -> None:
    """Refuses steps that can't run where they are placed: the cluster doesn't know this machine.

    Raises:
        RunError: A step of a detached run would run on this machine.
    """
    nodes = definition.graph.nodes
    if any(placement.executor_of(step) == LOCAL for step in nodes):
        check_local()
    if request.is_detached and placement.batch:
        raise RunError(
            f"--detach passes the run to a cluster, but {', '.join(placement.batch)} would run on AWS Batch.",
            cause="The driver in the cluster has no access to AWS Batch.",
            advice="Run it without --detach, or put every step on Kubernetes.",
        )
    if request.is_detached and (here := [step for step in nodes if step not in placement.pods]):
        raise RunError(
            f"--detach passes the run to a cluster, but {', '.join(here)} would run on this machine.",
            advice="Add --with kubernetes, which puts every step there.",
        )
    alone = [s for s, o in placement.pods.items() if o.hostname_resolution_timeout and not nodes[s].is_parallel]
    if alone:
        raise RunError(
            f"step {alone[0]} has a hostname_resolution_timeout, but is not under @parallel.",
            cause="Only the pods of such a step wait for each other.",
            advice="Write it in the @kubernetes of the steps that are.",
        )


def prepare(request: RunRequest, placement: Placement, origin: ObjectStore | None = None) -> Prepared:
    """Makes the checks for which nothing needs to be written.

    Args:
        request: The request of the user.
        placement: Where the steps run.
        origin: The store of the run that this one resumes, in which it has to be too.

    Raises:
        K8sflowError: The run can't be started.
    """
    check_names(request, origin)
    if not placement.is_remote:
        return _prepared_here(request, origin)
    if request.is_detached:
        from k8sflow.runtime.detached.submit import check_detachable  # noqa: PLC0415  only here is the API needed

        check_detachable(request.settings, placement.namespace)
    store, warnings = check_systems(
        placement, request.settings, request.definition.name, is_detached=request.is_detached
    )
    if origin is not None and origin.url != store.url:
        raise RunError(
            f"a run on Kubernetes or AWS Batch is in {store.url}, but the run that it is to resume is in {origin.url}.",
            cause="A run and the one that it resumes share their artifacts, which pods and jobs read from the bucket.",
            advice="Resume it on this machine, without --with, or start it again with run.",
        )
    code = code_package(request.flow, request.settings)
    return Prepared(store, code, [*warnings, *([code.warning] if code.warning else [])])


def _prepared_here(request: RunRequest, origin: ObjectStore | None) -> Prepared:
    """The ground for a run on this machine; in a bucket, where others read it, the code goes with it.

    Raises:
        K8sflowError: The bucket can't be used.
    """
    store = origin
    if store is None:
        settings, root = request.settings, local_root(request.flow, request.settings)
        store = store_of(settings, root, Patience(settings.storage_patience))
    if not store.is_shared:
        return Prepared(store)
    next(iter(store.list_folders("")), None)  # a bucket that is missing, or out of reach, is an error now
    folder = code_folder(request.flow)
    try:
        code = code_package(request.flow, request.settings)
    except PackageError as error:
        warning = (
            f"the code is not stored with the run: {error.summary}\nOn other machines, artifacts of classes that are "
            f"defined in {folder} can't be read. {error.advice}"
        )
        return Prepared(store, warnings=[warning])
    return Prepared(store, code, [code.warning] if code.warning else [])


def check_names(request: RunRequest, store: ObjectStore | None = None) -> None:
    """Refuses an id that can't be one, or is taken in the store, and a file that can't be written.

    Raises:
        RunError: The id or the file can't be used.
    """
    if request.run_id is not None and not _RUN_ID_PATTERN.fullmatch(request.run_id):
        raise RunError(
            f"{request.run_id!r} can't be a run's id.",
            advice="Use at most 63 of: lower-case letters, digits, - and . (letters or digits first and last).",
        )
    if request.run_id is not None and store is not None:
        RunStore(store, request.flow.__name__, request.run_id).refuse_existing()
    for file in (request.run_id_file, request.runner_attribute_file):
        if file is not None:
            id_files.check(Path(file), _RUN_ID)


def create(
    request: RunRequest,
    definition: FlowDefinition,
    placement: Placement,
    prepared: Prepared,
    origin: RunRecord | None = None,
    origin_step: str | None = None,
) -> Session:
    """Writes the run's record; from here on the run exists.

    Args:
        request: The request of the user.
        definition: The flow.
        placement: Where the steps run.
        prepared: The store, and the code for pods.
        origin: The run that this one resumes, whose parameters it has.
        origin_step: The step from which on everything runs again.
    """
    code = prepared.code
    artifacts = ArtifactStore(prepared.store, definition.name)
    if code is not None:
        artifacts.save_blob(code.sha256, [code.archive])
    values = fixed_values(definition, request.values, artifacts, origin.parameters if origin else {})
    record = replace(
        new_record(definition, values, request.run_id),
        pods=placement.pods,
        batch=placement.batch,
        flow_decorators=documents(
            definition.name, definition.decorations, current_user(), request.branch, request.production
        ),
        policies=placement.policies,
        package=code.sha256 if code is not None else None,
        tags=request.tags,
        decorators=request.decorators,
        namespace=request.namespace or "",
        origin_run_id=origin.run if origin else None,
        origin_step=origin_step,
        is_detached=request.is_detached,
        max_num_splits=request.max_num_splits,
        is_traced=request.is_traced,
        resources=requested(definition, request.decorators),
        environments=prepared.environments,
    )
    record = _with_cache(record, definition, request)
    run_store = RunStore(prepared.store, record.flow, record.run)
    run_store.create(record)
    check_exclusive(run_store, record)
    run_store.hold_origin(record)
    _tell(request, run_store)
    return Session(record, run_store, placement, request.settings, definition)


def _with_cache(record: RunRecord, definition: FlowDefinition, request: RunRequest) -> RunRecord:
    """The record with the plans of ``@cache``, if a step has it, in the flow or by ``--with``."""
    added = definition.added(request.decorators)
    used = (one.name for step in definition.steps for one in definition.decorations_of(step, added))
    if "cache" not in used:
        return record
    from k8sflow.runtime.caching.plan import Planner  # noqa: PLC0415  few flows need it

    planner = Planner(definition, record, code_folder(request.flow), is_taken=not request.without_cache)
    return replace(record, cache=planner.plans())


def _tell(request: RunRequest, run: RunStore) -> None:
    """Writes the files by which the program that has called the command learns of the run."""
    if request.run_id_file is not None:
        id_files.write(Path(request.run_id_file), _RUN_ID, run.run)
    if request.runner_attribute_file is not None:
        facts = {"flow_name": run.flow, "run_id": run.run, "metadata": run.store.url}
        id_files.write(Path(request.runner_attribute_file), _RUN_ID, json.dumps(facts))


def new_record(
    definition: FlowDefinition, parameters: Mapping[str, ArtifactRef], run_id: str | None = None
) -> RunRecord:
    """The record of a new run of a flow, as far as it doesn't depend on a user's request."""
    folder, file = code_folder(definition.flow), code_file(definition.flow)
    return RunRecord(
        flow=definition.name,
        run=run_id or new_run_id(),
        file=file,
        parameters=parameters,
        graph=definition.graph,
        user=current_user(),
        created=time.time(),
        source=str(folder / file),
        python_version=python_version(),
        k8sflow_version=VERSION,
        modules=package.modules(folder),
        code_hashes=package.code_hashes(folder, file),
        as_metaflow=metaflow_modules.is_installed(),
    )


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
    kind = "s3" if artifacts.store.is_shared else "local"
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
            advice=f"Call it _{name}: an attribute whose name begins with _ belongs to the class, not to the run.",
        ) from error
