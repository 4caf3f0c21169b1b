"""The plan of ``@cache`` for a step that follows from the code as it is now."""

from __future__ import annotations

from dataclasses import replace

from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition
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
    """
    compiled = checked(definition)
    record = replace(new_record(compiled, dict.fromkeys(compiled.run_values, ArtifactRef("", 0, "", ""))), tags=())
    return Planner(compiled, record, code_folder(compiled.flow)).plans().get(step)
