"""``@exit_hook``: calls one of a flow's functions after its run has ended, in a process or a pod of its own.

Each call is a task of the pseudo step ``exit-hook``; its index is the hook's position in the list. So it finds the
flow's code and the run's records where every task finds them, and its output is kept as theirs is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from k8sflow.flow.current import current
from k8sflow.flow.decorators.exit_hook import EVENTS, hooks
from k8sflow.flow.definition import FlowDefinition
from k8sflow.storage.records import RunRecord
from k8sflow.task.spec import EXIT_HOOK_STEP, TaskName, TaskSpec


@dataclass(frozen=True)
class HookCall:
    """One call that follows a run's end.

    Args:
        name: The function's name.
        spec: The task that calls it.
        image: The image of its pod, where its decorator names one.
    """

    name: str
    spec: TaskSpec
    image: str | None = None


def calls(record: RunRecord, event: str) -> list[HookCall]:
    """The calls that follow a run's end.

    Args:
        record: The run's record.
        event: ``on_success`` or ``on_error``.
    """
    recorded: Mapping[str, Any] = record.flow_decorators.get("exit_hook") or {}
    listed = [(other, name, position) for other in EVENTS for position, name in enumerate(recorded.get(other, ()))]
    images = (recorded.get("images") or {}).get(event)
    return [
        HookCall(
            name.rpartition(":")[2],
            TaskSpec(record.flow, record.run, TaskName(EXIT_HOOK_STEP, (index,))),
            images[position] if images else None,
        )
        for index, (other, name, position) in enumerate(listed)
        if other == event
    ]


def call(definition: FlowDefinition, spec: TaskSpec) -> None:
    """Calls one hook; with the run, where it takes that.

    Raises:
        BaseException: What the hook raises.
    """
    found = hooks(definition.decorations)
    hook = [function for event in EVENTS for function in found.get(event, ())][spec.name.path[0]]
    match _parameter_for_run(hook):
        case None:
            hook()
        case inspect.Parameter(kind=inspect.Parameter.POSITIONAL_ONLY):
            hook(current.run)
        case parameter:
            hook(**{parameter.name: current.run})


def _parameter_for_run(hook: Callable[..., object]) -> inspect.Parameter | None:
    """The parameter that takes the run: the one called ``run``, else the first that needs a value, else ``**more``."""
    try:
        parameters = inspect.signature(hook).parameters
    except (TypeError, ValueError):  # some built-in functions don't tell
        return None
    if "run" in parameters:
        return parameters["run"]
    named = [p for p in parameters.values() if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    needed = next((p for p in named if p.default is p.empty), None)
    if needed is not None:
        return needed
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY)
    return None
