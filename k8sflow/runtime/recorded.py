"""A flow with the configs that an earlier run of it was started with."""

from __future__ import annotations

from dataclasses import replace

from k8sflow.flow.compile import compile_flow, declared
from k8sflow.flow.config_expressions import run_with
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord


def redeclared(definition: FlowDefinition, record: RunRecord, store: ObjectStore) -> FlowDefinition:
    """The declarations of a flow, with the graph of an earlier run, and its configs where the command line gave none.

    Args:
        definition: What the flow declares with the configs of the command line.
        record: The earlier run.
        store: The store of that run.
    """
    artifacts, known = ArtifactStore(store, record.flow), record.parameters
    recorded = {name: artifacts.load(known[name], name) for name in definition.configs if name in known}
    configs = definition.configs.over(recorded)
    run_with(configs)
    graph = Graph.from_document(record.flow, record.graph)
    return replace(declared(definition.flow, configs, definition.attributes), graph=graph)


def recompiled(definition: FlowDefinition, record: RunRecord, store: ObjectStore) -> FlowDefinition:
    """The current code of a flow, compiled with the configs as in ``redeclared``.

    Raises:
        FlowDefinitionError: The flow has problems.
    """
    found = redeclared(definition, record, store)
    return compile_flow(found.flow, found.configs, found.attributes)
