"""The packages of a ``uv.lock`` or ``pylock.toml`` for one platform and Python, exactly as it has them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k8sflow.environments import platforms, requirement_files, sources, uv
from k8sflow.environments.pylock import dumped
from k8sflow.environments.runtime import constraints
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.package_names import leading, normalized
from k8sflow.flow.decorators.requested import Source

_PYLOCK = re.compile(r"pylock\.([^.]+\.)?toml")
_OUTDATED = re.compile(r"needs to be updated", re.IGNORECASE)
_OWN = "k8sflow"


def exported(what: str, source: Source, folder: Path, made: Path) -> str:
    """A lock as pylock.toml, for every platform.

    Args:
        what: The environment, as the subject of an error.
        source: The lock.
        folder: The flow's folder.
        made: A folder for files.

    Raises:
        DependencyError: It can't be read, or doesn't fit the project.
    """
    file = sources.path_of(source, folder)
    if _PYLOCK.fullmatch(file.name):
        _refuse_choices(what, source)
        return requirement_files.content(what, file)
    arguments = ["export", "--quiet", "--locked", "--format=pylock.toml", "--no-header", f"--prune={_OWN}"]
    output = made / "pylock.exported.toml"
    if file.name.endswith(".py.lock"):
        _refuse_choices(what, source)
        arguments += [f"--script={str(file).removesuffix('.lock')}", f"--output-file={output}"]
    else:
        arguments += [f"--project={file.parent}", "--no-emit-project", "--no-default-groups"]
        arguments += [f"--output-file={output}"]
        arguments += [f"--group={group}" for group in source.groups] + [f"--extra={extra}" for extra in source.extras]
    try:
        uv.call(what, arguments, folder)
    except DependencyError as error:
        if not _OUTDATED.search(error.cause):
            raise
        raise DependencyError(
            f"{what} can't be resolved: {file} doesn't fit {_project(file)}, which has changed since.",
            cause=error.cause,
            advice=f"Run `uv lock{' --script ' if file.name != 'uv.lock' else ''}"
            f"{_project(file) if file.name != 'uv.lock' else ''}` in {file.parent}.",
        ) from error
    return output.read_text(encoding="utf-8")


def _project(file: Path) -> str:
    return "pyproject.toml" if file.name == "uv.lock" else file.name.removesuffix(".lock")


def _refuse_choices(what: str, source: Source) -> None:
    if source.groups or source.extras:
        raise DependencyError(
            f"{what} can't be resolved: groups and extras are those of a project, and {source.file} has none.",
            advice="Name a uv.lock, or remove them.",
        )


def reduced(what: str, text: str, name: str, python: str, platform: str | None) -> str:
    """A lock with what one platform and Python install alone.

    Args:
        what: The environment, as the subject of an error.
        text: The lock, as pylock.toml with absolute paths.
        name: The name of the file that the lock is from.
        python: The version of Python.
        platform: The platform as uv names it; None for this machine.

    Raises:
        DependencyError: A package has no file for them, or k8sflow can't run with it.
    """
    document = sources.parsed(what, Path(name), text)
    packages = document.get("packages", [])
    if not isinstance(packages, list) or not all(map(_is_package, packages)):
        raise DependencyError(
            f"{what} can't be resolved: packages in {name} is not a list of tables with names and files.",
            advice="Make the file again, by `uv export --format=pylock.toml -o pylock.toml` or the tool that wrote it.",
        )
    values, tags = platforms.environment(python, platform), platforms.tags(python, platform)
    kept = []
    for package in packages:
        if normalized(package["name"]) != _OWN and _is_wanted(what, package, name, values):
            kept.append(_with_one_file(what, dict(package), tags, f"Python {python} on {platform or 'this machine'}"))
    for package in kept:
        _check_own_needs(what, package, name)
    return dumped({**document, "packages": kept})


def _is_package(found: object) -> bool:
    """True if an entry of a lock has the types that the specification gives its fields."""
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        return False
    wheels, texts = found.get("wheels", []), [found.get("version", ""), found.get("marker", "")]
    tables = [found.get(key, {}) for key in ("sdist", "archive", "directory", "vcs")]
    return (
        isinstance(wheels, list)
        and all(isinstance(table, Mapping) for table in (*wheels, *tables))
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(file.get("hashes", {}), Mapping) for file in (*wheels, *tables))
    )


def _is_wanted(what: str, package: Mapping[str, Any], name: str, values: Mapping[str, str]) -> bool:
    if (written := package.get("marker")) is None:
        return True
    markers = platforms.packaging(what).markers
    try:
        marker = markers.Marker(written)
        return bool(marker.evaluate({**values, "extras": set(), "dependency_groups": set()}, context="lock_file"))
    except (markers.InvalidMarker, markers.UndefinedComparison, markers.UndefinedEnvironmentName) as error:
        raise DependencyError(
            f"{what} can't be resolved: {name} has the marker {written!r} for {package['name']}, which can't be read."
        ) from error


def _with_one_file(what: str, package: dict[str, Any], tags: Mapping[str, int], where: str) -> dict[str, Any]:
    """A package with the best of its wheels alone, or its source."""
    for key in ("marker", "dependencies"):
        package.pop(key, None)
    utils = platforms.packaging(what).utils
    fitting = []
    for wheel in package.pop("wheels", ()):
        file = os.path.basename(str(wheel.get("name") or wheel.get("url") or wheel.get("path")).partition("#")[0])  # noqa: PTH119  a URL
        try:
            _, _, build, found = utils.parse_wheel_filename(file.replace("%2B", "+").replace("%2b", "+"))
        except utils.InvalidWheelFilename:
            continue
        places = [tags[str(tag)] for tag in found if str(tag) in tags]
        if places:
            fitting.append((min(places), [-number for number in build[:1]], file, wheel))
    if fitting:
        package.pop("sdist", None)
        return {**package, "wheels": [min(fitting, key=lambda one: one[:3])[-1]]}
    if not {"sdist", "archive", "directory", "vcs"} & package.keys():
        raise DependencyError(
            f"{what} can't be resolved: a package has no wheel for this platform and Python.",
            cause=f"The lock has no wheel of {package['name']} {package.get('version', '')} for {where}.",
            advice="Lock another version, or ask for another Python by @pypi(python=…).",
        )
    return package


def _check_own_needs(what: str, package: Mapping[str, Any], name: str) -> None:
    """Refuses a version with which k8sflow can't run in the step."""
    needs = {normalized(leading(line)): line for line in constraints()}
    line = needs.get(normalized(package["name"]))
    if line is None or "version" not in package:
        return
    condition = platforms.packaging(what).requirements.Requirement(line)
    if not condition.specifier.contains(package["version"], prereleases=True):
        raise DependencyError(
            f"{what} can't be used: {name} has {package['name']} {package['version']}, and k8sflow itself, which runs "
            f"in the step too, needs {line}.",
            advice="Change the project's dependencies, and lock it again.",
        )
