"""Resolves what a step asks for to a lock. The same request has the same lock, until it is refreshed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k8sflow.environments import cache, uv
from k8sflow.environments.lock import FOLDERS, Lock
from k8sflow.environments.runtime import constraints
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.package_names import leading, normalized
from k8sflow.flow.decorators.pypi import Requested

# Settings of uv that don't change what it resolves.
_IRRELEVANT = frozenset(
    {"UV_CACHE_DIR", "UV_LINK_MODE", "UV_NO_PROGRESS", "UV_CONCURRENT_DOWNLOADS", "UV_HTTP_TIMEOUT"}
)
# Tokens of an index change within hours, and say nothing of its packages.
_CREDENTIAL = re.compile(r"UV_INDEX_.+_(USERNAME|PASSWORD)")
_FILES = ("uv.toml", "pyproject.toml")
_PATH = re.compile(r'(\bpath = )("(?:[^"\\]|\\.)*")')
_CREDENTIALS = re.compile(r"(https?://)[^/@\s\"'?#]+@")
# Folders inside of a package's folder that its wheel doesn't depend on.
_NOT_SOURCE = frozenset({".git", ".venv", "__pycache__", "build", "dist"})
_SETTINGS = re.compile(rb"^\s*\[+\s*tool\.uv\b", re.MULTILINE)


def python_of(requested: Requested) -> str:
    """The version of Python of an environment: the one that was asked for, or that of this process."""
    return requested.python or ".".join(map(str, sys.version_info[:2]))


def host_platform() -> str:
    """The name of this machine's platform, with its C library: wheels for glibc don't run with musl."""
    library = sysconfig.get_config_var("SOABI") or ""
    return f"{sysconfig.get_platform()}{'-musl' if library.endswith('musl') else ''}"


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
    _refuse_credentials(what, requested)
    file = cache.folder("locks") / f"{_key(requested, folder, platform)}.json"
    if not refresh and (known := _known(file)) is not None:
        return known
    import tempfile  # noqa: PLC0415  most runs find a known lock

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
        text = portable(output.read_text(encoding="utf-8"), Path(os.path.realpath(made))) + _folders(requested, folder)
        lock = Lock(requested.requirements, python, platform or host_platform(), text)
    cache.write(file, json.dumps(lock.to_document()).encode())
    return lock


def answers(lock: Lock, requested: Requested, folder: Path, platform: str | None) -> bool:
    """True if a lock is that of a request, so that a resumed run can keep it.

    Args:
        lock: The lock.
        requested: The request.
        folder: The flow's folder.
        platform: As in ``resolve``.

    Raises:
        DependencyError: A file or folder from which a package is installed can't be read.
    """
    wanted = (requested.requirements, python_of(requested), platform or host_platform())
    same = (lock.requirements, lock.python, lock.platform) == wanted
    return same and lock.text.endswith(_folders(requested, folder))


def portable(text: str, folder: Path) -> str:
    """A lock that doesn't depend on where it is, and holds no credentials: it is recorded with the run.

    Args:
        text: The lock, as uv has written it.
        folder: Where it was written, without symbolic links.
    """

    def absolute(found: re.Match[str]) -> str:
        return f"{found[1]}{json.dumps(os.path.normpath(folder / json.loads(found[2])), ensure_ascii=False)}"

    text = _PATH.sub(absolute, text)
    return _CREDENTIALS.sub(lambda found: found[1], text)


def _refuse_credentials(what: str, requested: Requested) -> None:
    for line in requested.requirements:
        if _CREDENTIALS.search(line):
            name = line.partition(" @ ")[0]
            raise DependencyError(
                f"{what} can't be locked: the address of {name} has credentials, which would be recorded with the run.",
                advice="Write it without them. uv takes them from ~/.netrc, a keyring or `uv auth login`.",
            )


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
    settings = {
        name: _CREDENTIALS.sub(r"\1", value)
        for name, value in os.environ.items()
        if name.startswith("UV_") and name not in _IRRELEVANT and not _CREDENTIAL.fullmatch(name)
    }
    document: dict[str, Any] = {
        "requirements": requested.requirements,
        "python": python_of(requested),
        "platform": platform or host_platform(),
        "implementation": sysconfig.get_config_var("SOABI"),
        "constraints": constraints(),
        "settings": settings,
        "file": _settings_file(folder),
        "sources": _local_sources(requested, folder),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _settings_file(folder: Path) -> str:
    """A hash of the files with uv's settings for a folder."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in settings_files(folder))).hexdigest()


def settings_files(folder: Path) -> list[Path]:
    """The files that hold uv's settings for a folder, the most important one first.

    Args:
        folder: The flow's folder.
    """
    if os.environ.get("UV_NO_CONFIG", "").lower() in {"1", "true", "yes", "on"}:
        return []
    if named := os.environ.get("UV_CONFIG_FILE"):
        return [file for file in [Path(named)] if file.is_file()]
    users = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111  without a home, "~"
    nearest = [parent / name for parent in (folder, *folder.parents) for name in _FILES]
    return [
        *[file for file in nearest if _has_settings(file)][:1],
        *(file for file in (Path(users, "uv", "uv.toml"), Path("/etc/uv/uv.toml")) if _has_settings(file)),
    ]


def _has_settings(file: Path) -> bool:
    try:
        data = file.read_bytes()
    except OSError:
        return False
    return file.name != "pyproject.toml" or _SETTINGS.search(data) is not None


def _local_sources(requested: Requested, folder: Path) -> Mapping[str, Any]:
    """The sizes and times of the wheels, archives and folders that are named by a path."""
    found: dict[str, Any] = {}
    for line in requested.requirements:
        name, _, source = line.partition(" @ ")
        if source and "://" not in source.removeprefix("file://"):
            path = folder / source.removeprefix("file://")
            try:
                status = path.stat()
                found[source] = _inside(path) if path.is_dir() else (status.st_size, status.st_mtime_ns)
            except OSError as error:
                raise DependencyError(
                    f"{name} is to be installed from {path}, which can't be read: {error.strerror}.",
                    advice="A relative path starts at the folder of the flow's file.",
                ) from error
    return found


def _inside(path: Path) -> list[tuple[str, int, int]]:
    """The files in a package's folder, whose own time says nothing of those further inside."""
    found = []
    for root, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in _NOT_SOURCE and not name.endswith(".egg-info"))
        for name in sorted(names):
            file = Path(root, name)
            status = file.lstat()
            found.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
    return found


def _folders(requested: Requested, folder: Path) -> str:
    """A line for a lock with packages from folders: after a change of a file, it is another lock."""
    sources = _local_sources(requested, folder)
    inside = {source: files for source, files in sources.items() if isinstance(files, list)}
    return f"{FOLDERS}{hashlib.sha256(json.dumps(inside).encode()).hexdigest()}\n" if inside else ""
