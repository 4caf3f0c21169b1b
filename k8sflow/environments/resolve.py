"""Resolves what a step asks for to a lock. The same request has the same lock, until it is refreshed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k8sflow.environments import cache, uv
from k8sflow.environments.lock import Lock
from k8sflow.environments.runtime import constraints
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.package_names import leading, normalized
from k8sflow.flow.decorators.pypi import Requested

# Settings of uv that don't change what it resolves.
_IRRELEVANT = frozenset(
    {"UV_CACHE_DIR", "UV_LINK_MODE", "UV_NO_PROGRESS", "UV_CONCURRENT_DOWNLOADS", "UV_HTTP_TIMEOUT"}
)
_FILES = ("uv.toml", "pyproject.toml")
_SETTINGS = re.compile(rb"^\s*\[+\s*tool\.uv\b", re.MULTILINE)


def python_of(requested: Requested) -> str:
    """The version of Python of an environment: the one that was asked for, or that of this process."""
    return requested.python or ".".join(map(str, sys.version_info[:2]))


def host_platform() -> str:
    """The name of this machine's platform."""
    return sysconfig.get_platform()


def resolve(
    what: str, requested: Requested, folder: Path, *, platform: str | None = None, refresh: bool = False
) -> Lock:
    """The lock of a request.

    Args:
        what: The environment, as the subject of an error: ``the packages of step train``.
        requested: The request.
        folder: The flow's folder: relative paths start there, and uv looks for its settings from there.
        platform: The platform as uv names it; None for that of this machine.
        refresh: Whether to resolve again what was resolved before.

    Raises:
        DependencyError: It can't be resolved.
    """
    file = cache.folder("locks") / f"{_key(requested, folder, platform)}.json"
    if not refresh and (known := _known(file)) is not None:
        return known
    python = python_of(requested)
    with tempfile.TemporaryDirectory(prefix="k8sflow-lock-") as made:
        output, constraint_file = Path(made, "pylock.toml"), Path(made, "k8sflow-constraints.txt")
        constraint_file.write_text("".join(f"{line}\n" for line in constraints()), encoding="utf-8")
        arguments = ["pip", "compile", "--quiet", "--no-header", "--format=pylock.toml", "-", f"--output-file={output}"]
        arguments += [f"--constraints={constraint_file}", f"--python-version={python}"]
        if platform is not None:
            arguments += [f"--python-platform={platform}", "--only-binary=:all:"]
        arguments += ["--refresh"] if refresh else []
        try:
            uv.call(what, arguments, folder, "".join(f"{line}\n" for line in requested.requirements))
        except DependencyError as error:
            raise _with_own_needs(error, requested) from error
        lock = Lock(requested.requirements, python, platform or host_platform(), output.read_text(encoding="utf-8"))
    cache.write(file, json.dumps(lock.to_document()).encode())
    return lock


def answers(lock: Lock, requested: Requested, platform: str | None) -> bool:
    """True if a lock is that of a request, so that a resumed run can keep it."""
    wanted = (requested.requirements, python_of(requested), platform or host_platform())
    return (lock.requirements, lock.python, lock.platform) == wanted


def _with_own_needs(error: DependencyError, requested: Requested) -> DependencyError:
    """The error, with the versions that k8sflow needs of packages that were asked for."""
    names = {normalized(leading(line)) for line in requested.requirements}
    needs = [line for line in constraints() if normalized(leading(line)) in names]
    if not needs:
        return error
    advice = f"{error.advice} k8sflow itself, which runs in the step too, needs {', '.join(needs)}."
    return DependencyError(error.summary, cause=error.cause, advice=advice)


def _known(file: Path) -> Lock | None:
    try:
        return Lock.from_document(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key(requested: Requested, folder: Path, platform: str | None) -> str:
    """A name for a request with everything that its answer depends on, apart from what the index has."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("UV_") and name not in _IRRELEVANT}
    document: dict[str, Any] = {
        "requirements": requested.requirements,
        "python": python_of(requested),
        "platform": platform or host_platform(),
        "constraints": constraints(),
        "settings": settings,
        "file": _settings_file(folder),
        "sources": _local_sources(requested, folder),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _settings_file(folder: Path) -> str:
    """The content of the file with uv's settings for a folder: the nearest uv.toml, or pyproject.toml with some."""
    named = os.environ.get("UV_CONFIG_FILE")
    files = [Path(named)] if named else [parent / name for parent in (folder, *folder.parents) for name in _FILES]
    for file in files:
        try:
            data = file.read_bytes()
        except OSError:
            continue
        if file.name != "pyproject.toml" or _SETTINGS.search(data):
            return hashlib.sha256(data).hexdigest()
    return ""


def _local_sources(requested: Requested, folder: Path) -> Mapping[str, tuple[int, int]]:
    """The sizes and times of the wheels and archives that are named by a path."""
    found = {}
    for line in requested.requirements:
        _, _, source = line.partition(" @ ")
        if source and "://" not in source.removeprefix("file://"):
            path = folder / source.removeprefix("file://")
            try:
                status = path.stat()
            except OSError as error:
                name = line.partition(" @ ")[0]
                raise DependencyError(
                    f"{name} is to be installed from {path}, which can't be read: {error.strerror}.",
                    advice="A relative path starts at the folder of the flow's file.",
                ) from error
            found[source] = (status.st_size, status.st_mtime_ns)
    return found
