"""The decorators of a flow's class, as a run's record keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import project, schedule
from k8sflow.flow.decorators.base import Decoration
from k8sflow.flow.decorators.exit_hook import exit_hook, hooks, images

_ONLY_DEPLOYED = ("schedule", "trigger", "trigger_on_finish")


def documents(
    flow: str,
    decorations: Sequence[Decoration],
    user: str,
    branch: str | None,
    production: bool | None,  # noqa: FBT001
) -> dict[str, Any]:
    """A flow's decorators as JSON types, by name.

    Args:
        flow: The flow's name.
        decorations: Its decorators.
        user: The user starting the run.
        branch: The value of ``--branch``.
        production: The value of ``--production``.

    Raises:
        FlowDefinitionError: A decorator is wrong, or a branch was named without a project.
    """
    found: dict[str, Any] = {}
    for decoration in decorations:
        if decoration.decorator.on == "flow" and decoration.name != exit_hook.name:
            found[decoration.name] = {k: v for k, v in decoration.parsed().items() if v is not None}
    if named := hooks(decorations):
        found[exit_hook.name] = {
            event: [f"{function.__module__}:{function.__qualname__}" for function in functions]
            for event, functions in named.items()
        }
        if named_images := images(decorations):
            found[exit_hook.name]["images"] = named_images
    if "schedule" in found:
        found["schedule"] = schedule.description(found["schedule"])
    if "project" in found:
        found["project"] = project.description(found["project"], flow, user, branch, production)
    elif branch is not None or production:
        raise FlowDefinitionError(
            f"--{'production' if production else 'branch'} needs a project, and {flow} has none.",
            advice="Write @project(name='…') above the class.",
        )
    return found


def only_deployed(decorations: Sequence[Decoration]) -> list[str]:
    """The names of a flow's decorators that take effect in a deployment only."""
    present = {decoration.name for decoration in decorations}
    return [name for name in _ONLY_DEPLOYED if name in present]
