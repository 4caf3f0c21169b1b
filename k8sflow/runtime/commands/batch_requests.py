"""The requests to AWS Batch of a run that is not started, for ``run --dry-run``."""

from __future__ import annotations

from k8sflow.aws.document import Document
from k8sflow.executors.batch.submission import definition_of, request_of
from k8sflow.executors.context import RunContext
from k8sflow.flow.graph import Graph
from k8sflow.task.batch import TaskBatch


def requests_of(context: RunContext, tasks: TaskBatch, known: set[str]) -> Document:
    """The requests for the first job of a step, by the names of the operations.

    AWS isn't asked for the kind of the job queue: they are those for a queue of EC2 instances.

    Args:
        context: The run.
        tasks: The tasks of the job.
        known: The names of the job definitions that earlier steps register; that of this step is added.
    """
    options = context.batch[tasks.template.name.step]
    found: Document = {}
    name = options.job_definition
    if name is None:
        definition = definition_of(context, tasks, options, is_fargate=False)
        name = definition.name
        if name not in known:
            found["RegisterJobDefinition"] = {"jobDefinitionName": name, **definition.document()}
        known.add(name)
    return {**found, "SubmitJob": request_of(context, tasks, options, str(options.queue), name)}


def about(graph: Graph, step: str) -> str:
    """A sentence about the job of a step."""
    if graph[step].is_parallel:
        return f"Step {step}: one multi-node job, here with two nodes; the inputs of its tasks are left out."
    if depth := graph.depth(step):
        inside = " in ".join(f"the foreach of {split}" for split in reversed(graph.nodes[step].splits[-depth:]))
        return f"Step {step}: an array job for the branches of {inside}, here for two; their inputs are left out."
    if graph.nodes[step].is_start:
        return f"Step {step}: its job."
    return f"Step {step}: its job; the inputs of its task are left out."
