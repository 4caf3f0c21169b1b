"""``run --dry-run``: what a run would create, as YAML: objects for ``kubectl apply``, and requests to AWS Batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import yaml

from k8sflow.errors import RunError
from k8sflow.executors.batch.preflight import check_options
from k8sflow.executors.bucket import open_bucket
from k8sflow.executors.context import RunContext
from k8sflow.executors.kubernetes.run_objects import RunObjects, owner_manifest
from k8sflow.executors.kubernetes.submission import job_name, task_job
from k8sflow.flow.compile import checked
from k8sflow.flow.graph import Graph
from k8sflow.kubernetes import flowrun
from k8sflow.kubernetes.job import job_manifest
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.service import service_manifest
from k8sflow.runtime.commands import batch_requests
from k8sflow.runtime.commands.create import check_executors, check_names, new_record
from k8sflow.runtime.commands.lock_environments import unresolved
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.request import RunRequest, code_package
from k8sflow.storage.run_store import RunStore
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec

# A step under @parallel, or an array job, is shown with so many processes: only a run knows their number.
_SHOWN_PROCESSES = 2
_NOT_ASKED = (
    "# The cluster is not asked, so settings in the ConfigMap k8sflow-settings of the namespace are not applied here.\n"
)


def manifests(request: RunRequest) -> str:
    """The manifests and requests of a run that is not started: nothing is stored, and neither system is asked.

    Raises:
        K8sflowError: The run couldn't be started, or runs on this machine alone.
    """
    definition = checked(request.definition)
    placement = Placement.of(definition, request.decorators, request.settings)
    check_executors(request, definition, placement)
    check_names(request)
    if not placement.is_remote:
        raise RunError(
            "--dry-run prints what a run creates on Kubernetes or AWS Batch, and every step of this one runs on this "
            "machine.",
            advice="Add --with kubernetes or --with batch, or @kubernetes or @batch to a step.",
        )
    check_options(placement.batch)
    settings = placement.inside(request.settings)
    store = open_bucket(settings, system="Kubernetes" if placement.uses_kubernetes else "AWS Batch")
    record = replace(
        new_record(definition, {}, request.run_id),
        pods=placement.pods,
        batch=placement.batch,
        policies=placement.policies,
        environments=unresolved(request, definition, placement),
        package=code_package(request.flow, request.settings).sha256,
    )
    context = RunContext(
        report=lambda _event: None,
        record=record,
        run_store=RunStore(store, record.flow, record.run),
        settings=settings,
        pods=placement.pods,
        batch=placement.batch,
        policies=placement.policies,
    )
    owner: Manifest | None = None
    if request.is_detached:
        owner = flowrun.flowrun_manifest(record, request.settings, placement.namespace, store.url)
    elif placement.uses_kubernetes:
        owner = owner_manifest(RunObjects.of(context))
    return "---\n".join(_documents(context, owner))


def _documents(context: RunContext, owner: Manifest | None) -> Iterator[str]:
    graph = context.record.graph
    if owner is not None:
        about = "# The owner of the run's objects; a run adds the reference to it to each Job."
        yield f"{_NOT_ASKED}{about}\n{_yaml(owner)}"
    flow, run, namespace = context.record.flow, context.record.run, context.settings.kubernetes_namespace
    if any(graph[step].is_parallel for step in context.pods):
        service = service_manifest(flow=flow, run=run, namespace=namespace)
        yield f"# The Service by which the pods of steps under @parallel find each other.\n{_yaml(service)}"
    definitions: set[str] = set()
    for step in graph.nodes:
        if step in context.batch:
            requests = batch_requests.requests_of(context, _tasks(context, step), definitions)
            yield f"# {batch_requests.about(graph, step)}\n{_yaml(requests)}"
            continue
        if step not in context.pods:
            yield f"# Step {step} runs on this machine.\n"
            continue
        tasks = _tasks(context, step)
        job = task_job(context, job_name(tasks), tasks, context.pods[step])
        yield f"# {_about(graph, step)}\n{_yaml(job_manifest(job))}"


def _tasks(context: RunContext, step: str) -> TaskBatch:
    """The tasks of the step's first Job or job: the first two, where they run together or are an array."""
    graph = context.record.graph
    nodes = _SHOWN_PROCESSES if graph[step].is_parallel else 1
    path = (0,) * graph.depth(step)
    is_array = step in context.batch and bool(path)
    paths = [(*path[:-1], index) for index in range(_SHOWN_PROCESSES)] if nodes > 1 or is_array else [path]
    flow, run = context.record.flow, context.record.run
    return TaskBatch.of([TaskSpec(flow, run, TaskName(step, each), nodes=nodes) for each in paths])


def _about(graph: Graph, step: str) -> str:
    if graph[step].is_parallel:
        return f"Step {step}: one Job with a pod for each process, here for two; the inputs are left out."
    if depth := graph.depth(step):
        inside = " in ".join(f"the foreach of {split}" for split in reversed(graph.nodes[step].splits[-depth:]))
        return f"Step {step}: a Job for each branch of {inside}; this is the first one's, its inputs are left out."
    if graph.nodes[step].is_start:
        return f"Step {step}."
    return f"Step {step}: the inputs of its task, which are known when the steps before it have ended, are left out."


def _yaml(manifest: Manifest) -> str:
    text: str = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=1000)
    return text
