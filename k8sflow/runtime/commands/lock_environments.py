"""Locks the packages of a run's steps, and makes the environments of those that run here, before the run exists."""

from __future__ import annotations

from pathlib import Path

from k8sflow.environments import local, resolve
from k8sflow.environments.lock import Lock
from k8sflow.errors import DependencyError
from k8sflow.executors.by_name import LOCAL
from k8sflow.executors.environments import what_of
from k8sflow.flow.decorators.base import Decoration
from k8sflow.flow.decorators.pypi import Requested, requested
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.request import RunRequest, code_folder
from k8sflow.storage.records import RunRecord


def lock_environments(
    request: RunRequest,
    definition: FlowDefinition,
    placement: Placement,
    console: Console,
    origin: RunRecord | None = None,
) -> dict[str, Lock]:
    """The locks of the steps that have an environment of their own, by step.

    Args:
        request: The request of the user.
        definition: The flow.
        placement: Where the steps run.
        console: Shows what takes time.
        origin: The run that this one resumes: a step that asks for the same packages keeps its lock.

    Raises:
        DependencyError: Packages can't be resolved or installed.
    """
    if not request.has_environments:
        return {}
    added = definition.added(request.decorators)
    found: dict[str, Lock] = {}
    resolved: dict[Requested, Lock] = {}
    steps = _requests(definition, added)
    for step, wanted in steps.items():
        if placement.executor_of(step) != LOCAL:
            raise DependencyError(
                f"step {step} has @pypi and runs in a pod or a job, for which packages can't be installed yet.",
                advice="Build an image with them and name it with image=…, and write @pypi(disabled=True).",
            )
        if wanted not in resolved:
            resolved[wanted] = _resolved(step, steps, request, origin)
        found[step] = resolved[wanted]
    for lock in dict.fromkeys(found.values()):
        users = [step for step, other in found.items() if other == lock]
        _make(users, lock, code_folder(request.flow), console)
    return found


def _make(steps: list[str], lock: Lock, folder: Path, console: Console) -> None:
    """Makes the environment of some steps where it doesn't exist."""
    count = len(lock.packages)
    note = f"Making the environment of {', '.join(steps)}: {count} package{'' if count == 1 else 's'} …"
    local.ensure(what_of(steps), lock, lambda: console.say(note, Tone.DIM, is_aside=True), folder)


def _requests(definition: FlowDefinition, added: tuple[Decoration, ...]) -> dict[str, Requested]:
    found = {}
    for step in definition.graph.nodes:
        wanted = requested(definition.decorations, definition.decorations_of(step, added))
        if wanted is not None:
            found[step] = wanted
    return found


def _resolved(step: str, steps: dict[str, Requested], request: RunRequest, origin: RunRecord | None) -> Lock:
    known = origin.environments.get(step) if origin is not None else None
    if known is not None and not request.refresh_environments and resolve.answers(known, steps[step], None):
        return known
    users = [other for other, wanted in steps.items() if wanted == steps[step]]
    folder: Path = code_folder(request.flow)
    return resolve.resolve(what_of(users), steps[step], folder, refresh=request.refresh_environments)
