"""The plan of ``@cache`` for a step that follows from the code as it is now."""

from __future__ import annotations

from dataclasses import replace

from k8sflow.environments import resolve, script_metadata
from k8sflow.environments.lock import Lock
from k8sflow.executors.environments import what_of
from k8sflow.flow.compile import checked
from k8sflow.flow.decorators.pypi import requested
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.script import script_of
from k8sflow.runtime.caching.plan import Planner
from k8sflow.runtime.commands.create import new_record
from k8sflow.runtime.request import code_folder
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.cache_plan import CachePlan


def plan_of_current_code(definition: FlowDefinition, step: str) -> CachePlan | None:
    """The plan of a step on this machine; None if the step doesn't exist, or has no ``@cache`` in the flow.

    Args:
        definition: What the flow declares.
        step: The step.

    Raises:
        FlowDefinitionError: The flow has problems.
        PackageError: A file of its folder can't be read.
        DependencyError: Nor can one from which a package is installed.
    """
    compiled = checked(definition)
    if step not in compiled.steps:
        return None
    values = dict.fromkeys(compiled.run_values, ArtifactRef("", 0, "", ""))
    record = replace(new_record(compiled, values), tags=(), environments=_locks(compiled, step))
    return Planner(compiled, record, code_folder(compiled.flow)).plans().get(step)


def _locks(definition: FlowDefinition, step: str) -> dict[str, Lock]:
    """The lock of the step's packages, if it has any of its own; an empty one before they are resolved."""
    folder = code_folder(definition.flow)
    script = script_metadata.source(script_of(definition.flow).file, folder)
    wanted = requested(definition.decorations, definition.decorations_of(step, ()), script)
    return {} if wanted is None else {step: resolve.known(what_of([step]), wanted, folder)}
