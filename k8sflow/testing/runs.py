"""A run that is in this process's memory alone: its record, and what runs its tasks."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k8sflow.errors import ParameterError
from k8sflow.flow.compile import build
from k8sflow.flow.configs import given
from k8sflow.flow.decorators import deployment, mutators
from k8sflow.flow.problems import did_you_mean
from k8sflow.flow.spec import FlowSpec, parameters
from k8sflow.runtime.start import fixed_values
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.memory import MemoryStore
from k8sflow.storage.records import RunRecord, new_run_id
from k8sflow.storage.run_store import RunStore
from k8sflow.task.runner import TaskRunner
from k8sflow.user import current_user

_OUR_FILES = f"{Path(__file__).resolve().parent.parent}{os.sep}"


@contextmanager
def configured(flow: type[FlowSpec], values: Mapping[str, Any] | None) -> Iterator[None]:
    """A flow with these values of its configs, and the defaults of the others; afterwards as it was before.

    Raises:
        ParameterError: There is no such config.
    """
    with given(flow, values or {}):
        mutators.undo(flow)
        try:
            yield
        finally:
            mutators.undo(flow)


def new_run(flow: type[FlowSpec], given: Mapping[str, Any]) -> TaskRunner:
    """What runs the tasks of a run that has just been created.

    Args:
        flow: The flow's class.
        given: The parameters' values.

    Raises:
        FlowDefinitionError: The flow has mistakes.
        ParameterError: A parameter is unknown, missing, or its value can't be used.
    """
    graph, store = build(flow), MemoryStore()
    record = RunRecord(
        flow=flow.__name__,
        run=new_run_id(),
        file=Path(inspect.getfile(flow)).name,
        parameters=fixed_values(flow, _by_attribute(flow, given), ArtifactStore(store, flow.__name__), {}),
        graph=graph.to_document(),
        flow_decorators=deployment.documents(flow, current_user(), None, None),
        user=current_user(),
        created=time.time(),
    )
    RunStore(store, record.flow, record.run).create(record)
    return TaskRunner(flow, graph, record, store)


def _by_attribute(flow: type[FlowSpec], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the parameters' types; a name with - in it is written with _."""
    found = parameters(flow)
    attributes = {spelling: attribute for attribute, parameter in found.items()
                  for spelling in (parameter.name, parameter.name.replace("-", "_"), attribute)}  # fmt: skip
    values = {}
    for name, value in given.items():
        if name not in attributes:
            listed = f"Its parameters are {', '.join(p.name for p in found.values())}." if found else "It has none."
            raise ParameterError(
                f"{flow.__name__} has no parameter {name!r}.",
                advice=f"{did_you_mean(name, attributes)} {listed}".strip(),
            )
        attribute = attributes[name]
        values[attribute] = None if value is None else found[attribute].convert(value, "the value")
    return values


def raised_by_user(error: BaseException) -> BaseException:
    """An exception without our frames above the user's code, so that a test's report begins with the step."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        found = found.tb_next
    return error if found is None else error.with_traceback(found)
