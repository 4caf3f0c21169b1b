"""A flow's current code with the configs and the graph of a run that has been started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from k8sflow.flow.compile import compile_checked, declared
from k8sflow.flow.config_expressions import run_with
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord


def take_configs(given: ConfigSet, record: RunRecord, store: ObjectStore) -> ConfigSet:
    """The configs of a run, from now on those of this process; what the command line gave comes first.

    Args:
        given: The flow's configs with the values of the command line.
        record: The run.
        store: The store of the run.
    """
    artifacts, known = ArtifactStore(store, record.flow), record.parameters
    found = given.over({name: artifacts.load(known[name], name) for name in given if name in known})
    run_with(found)
    return found


def redeclared(definition: FlowDefinition, record: RunRecord, store: ObjectStore) -> FlowDefinition:
    """The declarations of a flow, with the graph of an earlier run, and its configs where the command line gave none.

    Args:
        definition: What the flow declares with the configs of the command line.
        record: The earlier run.
        store: The store of that run.
    """
    configs = take_configs(definition.configs, record, store)
    return replace(declared(definition.flow, configs, definition.attributes), graph=record.graph)


def recompiled(
    flow: type[FlowSpec], attributes: Mapping[str, Any] | None, record: RunRecord, store: ObjectStore, given: ConfigSet
) -> FlowDefinition:
    """The definition of a flow for a task of a run: its code was checked when the run started.

    Args:
        flow: The flow's class.
        attributes: What ``__init__`` of the flow's instance has set, where there is one.
        record: The run.
        store: The store of the run.
        given: As in ``take_configs``.

    Raises:
        ParameterError: A config that a decorator needs has no value.
    """
    return compile_checked(flow, take_configs(given, record, store), attributes, record.graph)
