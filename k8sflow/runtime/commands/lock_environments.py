"""Locks the packages of a run's steps, and makes the environments of those that run here, before the run exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from k8sflow import units
from k8sflow.environments import script_metadata
from k8sflow.environments.lock import Lock, Wheel
from k8sflow.environments.sources import indexes, settings_folder
from k8sflow.executors.by_name import LOCAL
from k8sflow.executors.environments import what_of
from k8sflow.flow.compile import checked
from k8sflow.flow.decorators import conda
from k8sflow.flow.decorators.pypi import requested
from k8sflow.flow.decorators.requested import Requested
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.script import script_of
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.request import RunRequest, code_folder
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import RunRecord

_AT_A_TIME = 8


@dataclass(frozen=True)
class _Environment:
    """The packages that some steps share.

    Args:
        steps: The steps.
        wanted: What they ask for.
        platform: The platform on which they run as uv names it; None for that of this machine.
        lock: The packages.
    """

    steps: list[str]
    wanted: Requested
    platform: str | None
    lock: Lock


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
        FlowDefinitionError: A step's ``@conda`` names what only a channel of conda has.
    """
    found: dict[str, Lock] = {}
    for environment in _resolved_environments(request, definition, placement, console, origin, only):
        found |= dict.fromkeys(environment.steps, _prepared(environment, request, store, console))
    return {step: found[step] for step in definition.graph.nodes if step in found}


def locks_of_flow(request: RunRequest, console: Console) -> dict[str, Lock]:
    """The locks that a run would have, by step, without a run; nothing is installed.

    Args:
        request: The run's request.
        console: Shows where packages come from.

    Raises:
        DependencyError: Packages can't be resolved.
        FlowDefinitionError: The flow has mistakes, or a step's ``@conda`` names what only a channel of conda has.
    """
    definition = checked(request.definition)
    placement = Placement.of(definition, request.decorators, request.settings)
    environments = _resolved_environments(request, definition, placement, console)
    found = {step: environment.lock for environment in environments for step in environment.steps}
    return {step: found[step] for step in definition.graph.nodes if step in found}


def _resolved_environments(
    request: RunRequest,
    definition: FlowDefinition,
    placement: Placement,
    console: Console,
    origin: RunRecord | None = None,
    only: str | None = None,
) -> list[_Environment]:
    """The environments of a run's steps, resolved."""
    if not request.has_environments:
        return []
    users: dict[tuple[Requested, str | None], list[str]] = {}
    for step, wanted in _requests(request, definition).items():
        if only in {None, step}:
            users.setdefault((wanted, _platform(step, placement)), []).append(step)
    _say_where_conda_comes_from(request, definition, [step for steps in users.values() for step in steps], console)
    return [
        _Environment(
            steps,
            wanted,
            platform,
            _resolved(steps, wanted, platform, request, origin, console, keeps_changed=only is None),
        )
        for (wanted, platform), steps in users.items()
    ]


def unresolved(request: RunRequest, definition: FlowDefinition, placement: Placement) -> dict[str, Lock]:
    """Locks without packages of the steps that have an environment of their own, by step; no index is asked.

    Args:
        request: The request of the user.
        definition: The flow.
        placement: Where the steps run.

    Raises:
        FlowDefinitionError: A step's ``@conda`` names what only a channel of conda has.
    """
    if not request.has_environments:
        return {}
    steps = _requests(request, definition)
    return {
        step: Lock(wanted.lines, wanted.python or "", _platform(step, placement) or "", "")
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


def _prepared(environment: _Environment, request: RunRequest, store: ObjectStore, console: Console) -> Lock:
    """The lock, once its environment exists here, or its wheels are in the bucket."""
    folder, wanted = settings_folder(environment.wanted, code_folder(request.flow)), environment.wanted
    if environment.platform is None:
        _make(environment, folder, console, lambda: indexes(wanted, code_folder(request.flow)))
        return environment.lock
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it loads logging

    from k8sflow.environments import wheels  # noqa: PLC0415  it loads the client of HTTP

    what = what_of(environment.steps)
    lock = replace(environment.lock, files=wheels.stored_files(what, environment.lock))
    artifacts = ArtifactStore(store, request.definition.name)
    keys = indexes(wanted, code_folder(request.flow))

    def is_missing(wheel: Wheel) -> bool:
        size = wheels.size_of(wheel)
        return size is None or not artifacts.has_young(wheel.sha256, size)

    def save(wheel: Wheel) -> None:
        artifacts.save_blob(wheel.sha256, [wheels.fetched(what, wheel, folder, keys)])

    every = [package.wheel for package in lock.packages if package.wheel is not None]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        asked = list(pool.map(is_missing, every))
        missing = [wheel for wheel, is_not_there in zip(every, asked, strict=True) if is_not_there]
        if missing:
            count = units.count(len(missing), "package")
            console.say(f"Putting {count} of {', '.join(environment.steps)} into the bucket …", Tone.DIM, is_aside=True)
        list(pool.map(save, missing))
    return lock


def _make(environment: _Environment, folder: Path, console: Console, keys: Callable[[], Sequence[str]]) -> None:
    """Makes the environment of some steps where it doesn't exist."""
    from k8sflow.environments import local  # noqa: PLC0415  as below

    def announce() -> None:
        count = units.count(len(environment.lock.packages), "package")
        text = f"Making the environment of {', '.join(environment.steps)}: {count} …"
        console.say(text, Tone.DIM, is_aside=True)

    local.ensure(what_of(environment.steps), environment.lock, announce, folder, keys)


def _requests(request: RunRequest, definition: FlowDefinition) -> dict[str, Requested]:
    added = definition.added(request.decorators)
    script = script_metadata.source(script_of(request.flow).file, code_folder(request.flow))
    found = {}
    for step in definition.graph.nodes:
        wanted = requested(definition.decorations, definition.decorations_of(step, added), script)
        if wanted is not None:
            found[step] = wanted
    return found


def _say_where_conda_comes_from(
    request: RunRequest, definition: FlowDefinition, steps: list[str], console: Console
) -> None:
    added = definition.added(request.decorators)
    used = [*definition.decorations, *(one for step in steps for one in definition.decorations_of(step, added))]
    if steps and (text := conda.notice(used)) is not None:
        console.say(text, Tone.DIM, is_aside=True)


def _resolved(
    steps: list[str],
    wanted: Requested,
    platform: str | None,
    request: RunRequest,
    origin: RunRecord | None,
    console: Console,
    *,
    keeps_changed: bool,
) -> Lock:
    """The lock of some steps: that of the origin run, where the steps ask for the same, or a new one.

    Where only the content of a file has changed, a resumed run keeps the packages of the tasks that it takes over.
    """
    from k8sflow.environments import resolve  # noqa: PLC0415  most flows have no environments

    folder = code_folder(request.flow)
    if origin is not None and not request.refresh_environments:
        for known in filter(None, map(origin.environments.get, steps)):
            if resolve.answers(known, wanted, platform):
                if resolve.has_changed(known, wanted, folder):
                    if not keeps_changed:
                        break
                    console.say(_kept(steps, wanted, origin), is_aside=True)
                return known
    return resolve.resolve(what_of(steps), wanted, folder, platform=platform, refresh=request.refresh_environments)


def _kept(steps: list[str], wanted: Requested, origin: RunRecord) -> str:
    """The line about a lock that is kept though a file has changed since."""
    files = ", ".join(source.file for source in wanted.sources)
    return (
        f"Keeping {what_of(steps)} as run {origin.run} has locked them, though {files} changed since; "
        "--refresh-environments resolves them again."
    )
