"""A run that exists only in this process's memory: its record, and the runner of its tasks."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k8sflow.errors import ParameterError
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.config_expressions import running
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.decorators.flow_level import documents
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.problems import did_you_mean
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.commands.create import fixed_values
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import RunRecord, new_run_id
from k8sflow.storage.run_store import RunStore
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.user import current_user

_OUR_FILES = f"{Path(__file__).resolve().parent.parent}{os.sep}"


@contextmanager
def compiled(flow: type[FlowSpec], values: Mapping[str, Any] | None) -> Iterator[FlowDefinition]:
    """Compiles a flow with these values of its configs, and the defaults of the others.

    Raises:
        FlowDefinitionError: The flow has mistakes.
        ParameterError: There is no such config.
    """
    configs = ConfigSet.from_python(flow, values or {})
    with running(configs):
        yield compile_flow(flow, configs)


def new_run(definition: FlowDefinition, given: Mapping[str, Any]) -> TaskRunner:
    """Creates a run, and returns the runner of its tasks.

    Args:
        definition: The flow.
        given: Values of parameters.

    Raises:
        ParameterError: A parameter is unknown or missing, or its value can't be used.
    """
    store, name = MemoryStore(), definition.name
    record = RunRecord(
        flow=name,
        run=new_run_id(),
        file=Path(inspect.getfile(definition.flow)).name,
        parameters=fixed_values(definition, _by_attribute(definition, given), ArtifactStore(store, name), {}),
        graph=definition.graph,
        flow_decorators=documents(name, definition.decorations, current_user(), None, None),
        user=current_user(),
        created=time.time(),
    )
    RunStore(store, record.flow, record.run).create(record)
    return TaskRunner(definition, record, store)


def _by_attribute(definition: FlowDefinition, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the parameters' types; ``-`` in a parameter's name may be given as ``_``."""
    found = definition.parameters
    attributes: dict[str, str] = {}
    for attribute, parameter in found.items():
        attributes |= dict.fromkeys((parameter.name, parameter.name.replace("-", "_"), attribute), attribute)
    values = {}
    for name, value in given.items():
        if name not in attributes:
            listed = f"Its parameters are {', '.join(p.name for p in found.values())}." if found else "It has none."
            raise ParameterError(
                f"{definition.name} has no parameter {name!r}.",
                advice=f"{did_you_mean(name, attributes)} {listed}".strip(),
            )
        attribute = attributes[name]
        values[attribute] = None if value is None else found[attribute].convert(value, "the value")
    return values


def raised_by_user(error: BaseException) -> BaseException:
    """The exception without k8sflow's own frames at the top, so that a test's report starts at the step."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        found = found.tb_next
    return error if found is None else error.with_traceback(found)
