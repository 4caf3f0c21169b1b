"""The values of ``current`` in a task."""

from __future__ import annotations

import inspect
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from k8sflow.errors import K8sflowError
from k8sflow.flow.checkpoint import Checkpoint
from k8sflow.flow.current import TaskFacts
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Node
from k8sflow.storage.checkpoints import TaskCheckpoints
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.conventions import NOTICE_VARIABLE
from k8sflow.task.inside.gang import parallel_of
from k8sflow.task.spec import TaskSpec


def current_facts(definition: FlowDefinition, record: RunRecord, run_store: RunStore, spec: TaskSpec) -> TaskFacts:
    """The facts of one execution of a task."""
    return TaskFacts(
        flow_name=record.flow,
        run_id=record.run,
        step_name=spec.name.step,
        task_id=spec.name.id,
        retry_count=spec.attempt,
        origin_run_id=record.origin_run_id,
        username=record.user,
        tags=record.tags,
        namespace=record.namespace,
        parameter_names=tuple(definition.parameters),
        graph=lambda: describe(definition, record),
        run_store=run_store,
        checkpoint=Checkpoint(
            TaskCheckpoints(run_store, spec.name.step, spec.name.id, spec.attempt, lambda: _origins(record, run_store))
        ),
        notice_file=os.environ.get(NOTICE_VARIABLE) or _never_written(),
        more=dict(record.flow_decorators.get("project", {})),
        parallel=parallel_of(spec)
        if spec.name.step in definition.graph.nodes and definition.graph[spec.name.step].is_parallel
        else None,
    )


def _origins(record: RunRecord, run_store: RunStore) -> Iterator[RunStore]:
    """The runs that a run resumes, the last one first, as far as their unfinished tasks are continued.

    A step that the user named to ``resume`` starts over, and so does everything after it.
    """
    while record.origin_run_id is not None and record.origin_step is None:
        run_store = replace(run_store, run=record.origin_run_id)
        yield run_store
        try:
            record = run_store.read()
        except K8sflowError:  # it was deleted
            return


def _never_written() -> str:
    """The path of the notice on this machine, where there is none: code that looks for the file runs here too."""
    return str(Path(tempfile.gettempdir()) / f"k8sflow-{os.getpid()}-{secrets.token_hex(8)}")


def describe(definition: FlowDefinition, record: RunRecord) -> dict[str, Any]:
    """The flow's graph as JSON types."""
    graph = definition.graph
    return {
        "name": record.flow,
        "file": record.file,
        "doc": inspect.cleandoc(definition.flow.__doc__ or ""),
        "parameters": list(definition.parameters),
        "start_step": graph.start,
        "end_step": graph.end,
        "steps": {name: _described(node) for name, node in graph.nodes.items()},
    }


def _described(node: Node) -> dict[str, Any]:
    names = {"type": _type_of(node), "line": node.location.line, "foreach_artifact": node.foreach}
    return {**node.to_document(), "next": list(node.next), **names}


def _type_of(node: Node) -> str:
    """The role of a step in the graph, in the words that Metaflow's flows may look for."""
    kinds = {
        "split-switch": node.condition is not None,
        "split-foreach": node.foreach is not None,
        "split-parallel": node.num_parallel,
        "split": node.is_split,
        "join": node.is_join,
        "start": node.is_start,
        "end": node.is_end,
    }
    return next((kind for kind, holds in kinds.items() if holds), "linear")
