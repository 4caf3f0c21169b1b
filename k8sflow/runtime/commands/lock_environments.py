"""Locks the packages of a run's steps, and makes the environments of those that run here, before the run exists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from k8sflow import units
from k8sflow.environments.lock import Lock, Wheel
from k8sflow.executors.by_name import LOCAL
from k8sflow.executors.environments import what_of
from k8sflow.flow.compile import checked
from k8sflow.flow.decorators import conda
from k8sflow.flow.decorators.pypi import Requested, requested
from k8sflow.flow.definition import FlowDefinition
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.request import RunRequest, code_folder
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord

_AT_A_TIME = 8


def lock_environments(
    request: RunRequest,
    definition: FlowDefinition,
    placement: Placement,
    store: ObjectStore,
    console: Console,
    origin: RunRecord | None = None,
    only: str | None = None,
) -> dict[str, Lock]:
    """The locks of the steps that have an environment of their own, by step.

    Args:
        request: The request of the user.
        definition: The flow.
        placement: Where the steps run.
        store: The store in which the run will be.
        console: Shows what takes time.
        origin: The run that this one resumes: a step that asks for the same packages keeps its lock.
        only: The step that is to run; None for all.

    Raises:
        DependencyError: Packages can't be resolved or installed.
        FlowDefinitionError: A step has ``@conda``.
    """
    locks = resolved_environments(request, definition, placement, origin, only)
    prepared: dict[str, Lock] = {}
    for step, lock in locks.items():
        if step in prepared:
            continue
        where = _platform(step, placement)
        users = [other for other in locks if locks[other] is lock and _platform(other, placement) == where]
        prepared |= dict.fromkeys(users, _prepared(users, lock, where, request, store, console))
    return {step: prepared[step] for step in locks}


def resolved_environments(
    request: RunRequest,
    definition: FlowDefinition,
    placement: Placement,
    origin: RunRecord | None = None,
    only: str | None = None,
) -> dict[str, Lock]:
    """The locks of the steps that have an environment of their own, by step; nothing is installed.

    Args:
        request: The request of the user.
        definition: The flow.
        placement: Where the steps run.
        origin: The run that this one resumes: a step that asks for the same packages keeps its lock.
        only: The step that is to run; None for all.

    Raises:
        DependencyError: Packages can't be resolved.
        FlowDefinitionError: A step has ``@conda``.
    """
    if not request.has_environments:
        return {}
    found: dict[str, Lock] = {}
    resolved: dict[tuple[Requested, str | None], Lock] = {}
    steps = {step: wanted for step, wanted in _requests(request, definition).items() if only in {None, step}}
    for step, wanted in steps.items():
        where = _platform(step, placement)
        if (wanted, where) not in resolved:
            users = [other for other in steps if (steps[other], _platform(other, placement)) == (wanted, where)]
            resolved[wanted, where] = _resolved(users, wanted, where, request, origin)
        found[step] = resolved[wanted, where]
    return found


def locks_of_flow(request: RunRequest) -> dict[str, Lock]:
    """The locks that a run would have, by step, without a run.

    Args:
        request: The run's request.

    Raises:
        DependencyError: Packages can't be resolved.
        FlowDefinitionError: The flow has mistakes, or a step has ``@conda``.
    """
    definition = checked(request.definition)
    return resolved_environments(request, definition, Placement.of(definition, request.decorators, request.settings))


def unresolved(request: RunRequest, definition: FlowDefinition, placement: Placement) -> dict[str, Lock]:
    """Locks without packages of the steps that have an environment of their own, by step; no index is asked.

    Args:
        request: The request of the user.
        definition: The flow.
        placement: Where the steps run.

    Raises:
        FlowDefinitionError: A step has ``@conda``.
    """
    if not request.has_environments:
        return {}
    steps = _requests(request, definition)
    return {
        step: Lock(wanted.requirements, wanted.python or "", _platform(step, placement) or "", "")
        for step, wanted in steps.items()
    }


def _platform(step: str, placement: Placement) -> str | None:
    """The platform of a step's environment as uv names it; None for that of this machine."""
    if placement.executor_of(step) == LOCAL:
        return None
    # AWS Batch doesn't say which processors a queue has until a job runs; nearly all have these.
    selector = placement.pods[step].node_selector if step in placement.pods else None
    architecture = (selector or {}).get("kubernetes.io/arch", "amd64")
    return f"{'aarch64' if architecture == 'arm64' else 'x86_64'}-manylinux_2_28"


def _prepared(
    steps: list[str],
    lock: Lock,
    platform: str | None,
    request: RunRequest,
    store: ObjectStore,
    console: Console,
) -> Lock:
    """The lock, once its environment exists here, or its wheels are in the bucket."""
    if platform is None:
        _make(steps, lock, code_folder(request.flow), console)
        return lock
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it loads logging

    from k8sflow.environments import wheels  # noqa: PLC0415  it loads the client of HTTP

    what = what_of(steps)
    lock = replace(lock, files=wheels.stored_files(what, lock))
    artifacts = ArtifactStore(store, request.definition.name)

    def is_missing(wheel: Wheel) -> bool:
        size = wheels.size_of(wheel)
        return size is None or not artifacts.has_young(wheel.sha256, size)

    def save(wheel: Wheel) -> None:
        artifacts.save_blob(wheel.sha256, [wheels.fetched(what, wheel, code_folder(request.flow))])

    every = [package.wheel for package in lock.packages if package.wheel is not None]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        asked = list(pool.map(is_missing, every))
        missing = [wheel for wheel, is_not_there in zip(every, asked, strict=True) if is_not_there]
        if missing:
            count = units.count(len(missing), "package")
            console.say(f"Putting {count} of {', '.join(steps)} into the bucket …", Tone.DIM, is_aside=True)
        list(pool.map(save, missing))
    return lock


def _make(steps: list[str], lock: Lock, folder: Path, console: Console) -> None:
    """Makes the environment of some steps where it doesn't exist."""
    from k8sflow.environments import local  # noqa: PLC0415  as below

    def announce() -> None:
        count = units.count(len(lock.packages), "package")
        console.say(f"Making the environment of {', '.join(steps)}: {count} …", Tone.DIM, is_aside=True)

    local.ensure(what_of(steps), lock, announce, folder)


def _requests(request: RunRequest, definition: FlowDefinition) -> dict[str, Requested]:
    added = definition.added(request.decorators)
    found = {}
    for step in definition.graph.nodes:
        decorations = definition.decorations_of(step, added)
        conda.refuse(step, definition.decorations, decorations)
        wanted = requested(definition.decorations, decorations)
        if wanted is not None:
            found[step] = wanted
    return found


def _resolved(
    steps: list[str], wanted: Requested, platform: str | None, request: RunRequest, origin: RunRecord | None
) -> Lock:
    from k8sflow.environments import resolve  # noqa: PLC0415  most flows have no environments

    folder = code_folder(request.flow)
    if origin is not None and not request.refresh_environments:
        for known in filter(None, map(origin.environments.get, steps)):
            if resolve.answers(known, wanted, folder, platform):
                return known
    return resolve.resolve(what_of(steps), wanted, folder, platform=platform, refresh=request.refresh_environments)
