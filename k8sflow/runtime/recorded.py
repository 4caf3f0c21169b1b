"""A flow with the configs that an earlier run of it was started with."""

from __future__ import annotations

from dataclasses import replace

from k8sflow.flow.compile import declared
from k8sflow.flow.definition import FlowDefinition
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord
from k8sflow.task.recompile import take_configs


def redeclared(definition: FlowDefinition, record: RunRecord, store: ObjectStore) -> FlowDefinition:
    """The declarations of a flow, with the graph of an earlier run, and its configs where the command line gave none.

    Args:
        definition: What the flow declares with the configs of the command line.
        record: The earlier run.
        store: The store of that run.
    """
    configs = take_configs(definition.configs, record, store)
    return replace(declared(definition.flow, configs, definition.attributes), graph=record.graph)
