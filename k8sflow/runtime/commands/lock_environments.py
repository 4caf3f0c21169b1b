"""Locks the packages of a run's steps, and makes the environments of those that run here, before the run exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from k8sflow.environments import script_metadata
from k8sflow.environments.lock import Lock, LockedPackage
from k8sflow.environments.sources import indexes, settings_folder
from k8sflow.errors import DependencyError
from k8sflow.executors.by_name import KUBERNETES, LOCAL
from k8sflow.executors.environments import what_of
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
    if not request.has_environments:
        return {}
    found: dict[str, Lock] = {}
    resolved: dict[tuple[Requested, str | None], Lock] = {}
    steps = {step: wanted for step, wanted in _requests(request, definition).items() if only in {None, step}}
    _say_where_conda_comes_from(request, definition, list(steps), console)
    for step, wanted in steps.items():
        where = _platform(step, placement)
        if (wanted, where) not in resolved:
            users = [other for other in steps if (steps[other], _platform(other, placement)) == (wanted, where)]
            lock = _resolved(users, wanted, where, request, origin, console, keeps_changed=only is None)
            resolved[wanted, where] = _prepared(users, wanted, lock, where, request, store, console)
        found[step] = resolved[wanted, where]
    return found


def unresolved(request: RunRequest, definition: FlowDefinition, placement: Placement) -> dict[str, Lock]:
    """Locks without packages of the steps that have an environment of their own, by step; no index is asked.

    Args:
        request: The request of the user.
        definition: The flow.
        placement: Where the steps run.

    Raises:
        DependencyError: Packages can't be installed where a step runs.
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
    """The platform of a step's environment as uv names it; None for that of this machine.

    Raises:
        DependencyError: Packages can't be installed where it runs.
    """
    where = placement.executor_of(step)
    if where == LOCAL:
        return None
    if where != KUBERNETES:
        raise DependencyError(
            f"step {step} has @pypi and runs on AWS Batch, where packages can't be installed.",
            advice="Build an image with them, name it by @batch(image=…), and write @pypi(disabled=True).",
        )
    architecture = (placement.pods[step].node_selector or {}).get("kubernetes.io/arch", "amd64")
    return f"{'aarch64' if architecture == 'arm64' else 'x86_64'}-manylinux_2_28"


def _prepared(
    steps: list[str],
    wanted: Requested,
    lock: Lock,
    platform: str | None,
    request: RunRequest,
    store: ObjectStore,
    console: Console,
) -> Lock:
    """The lock, once its environment exists here, or its wheels are in the bucket."""
    folder = settings_folder(wanted, code_folder(request.flow))
    if platform is None:
        _make(steps, lock, folder, console, lambda: indexes(wanted, code_folder(request.flow)))
        return lock
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it loads logging

    from k8sflow.environments.wheels import fetched, stored_files  # noqa: PLC0415  it loads the client of HTTP

    what = what_of(steps)
    lock = replace(lock, files=stored_files(what, lock))
    artifacts = ArtifactStore(store, request.definition.name)
    keys = indexes(wanted, code_folder(request.flow))

    def save(package: LockedPackage) -> None:
        assert package.wheel is not None, "stored_files has refused the lock"
        artifacts.save_blob(package.wheel.sha256, [fetched(what, package.wheel, folder, keys)])

    console.say(f"Putting the {_counted(lock)} of {', '.join(steps)} into the bucket …", Tone.DIM, is_aside=True)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(save, lock.packages))
    return lock


def _make(steps: list[str], lock: Lock, folder: Path, console: Console, keys: Callable[[], Sequence[str]]) -> None:
    """Makes the environment of some steps where it doesn't exist."""
    from k8sflow.environments import local  # noqa: PLC0415  as below

    note = f"Making the environment of {', '.join(steps)}: {_counted(lock)} …"
    local.ensure(what_of(steps), lock, lambda: console.say(note, Tone.DIM, is_aside=True), folder, keys)


def _counted(lock: Lock) -> str:
    count = len(lock.packages)
    return f"{count} package{'' if count == 1 else 's'}"


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
