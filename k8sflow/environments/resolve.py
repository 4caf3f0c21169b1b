"""Resolves what a step asks for to a lock. The same request has the same lock, until it is refreshed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from k8sflow import toml
from k8sflow.environments import cache, platforms, pylock, sources, uv, uv_lock
from k8sflow.environments.lock import FOLDERS, Lock
from k8sflow.environments.runtime import constraints
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.package_names import leading, normalized
from k8sflow.flow.decorators.requested import Requested, SourceKind

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


def host_platform() -> str:
    """The name of this machine's platform, with its C library: wheels for glibc don't run with musl."""
    library = sysconfig.get_config_var("SOABI") or ""
    return f"{sysconfig.get_platform()}{'-musl' if library.endswith('musl') else ''}"


def known(what: str, requested: Requested, folder: Path) -> Lock:
    """The lock for this machine to which a request was resolved here before; one without packages if it wasn't.

    Args:
        what: The environment, as the subject of an error.
        requested: The request.
        folder: The flow's folder.

    Raises:
        DependencyError: A file or folder from which a package is installed can't be read.
    """
    inputs = sources.read(what, requested, folder)
    python = platforms.chosen_python(what, requested.python, list(inputs.pythons))
    found = _known(_lock_file(requested, folder, python, None, inputs.digest))
    if found is not None and _is_current(found):
        return found
    return Lock(requested.lines, python, host_platform(), "", inputs=inputs.digest)


def _lock_file(requested: Requested, folder: Path, python: str, platform: str | None, inputs: str) -> Path:
    return cache.folder("locks") / f"{_key(requested, folder, python, platform, inputs)}.json"


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
    inputs = sources.read(what, requested, folder)
    python = platforms.chosen_python(what, requested.python, list(inputs.pythons))
    file = _lock_file(requested, folder, python, platform, inputs.digest)
    if not refresh and (known := _known(file)) is not None and _is_current(known):
        return known
    import tempfile  # noqa: PLC0415  most runs find a known lock

    with tempfile.TemporaryDirectory(prefix="k8sflow-lock-") as made:
        here = Path(os.path.realpath(made))
        if requested.lock is not None:
            text = portable(uv_lock.exported(what, requested.lock, folder, here), _home(requested, folder, here))
            text = uv_lock.reduced(what, text, Path(requested.lock.file).name, python, platform)
        else:
            try:
                text = portable(_compiled(what, requested, folder, python, platform, here, is_new=refresh), here)
            except DependencyError as error:
                raise _with_own_needs(sources.located(error, requested, folder), requested) from error
            text = pylock.verified(what, text, inputs.hashes)
        lock = Lock(requested.lines, python, platform or host_platform(), text + _folders(text), inputs=inputs.digest)
    cache.write(file, json.dumps(lock.to_document()).encode())
    return lock


def _home(requested: Requested, folder: Path, made: Path) -> Path:
    """The folder from which the paths of a lock start: that of a pylock.toml, or the one into which uv wrote it."""
    assert requested.lock is not None, "the caller has looked"
    file = sources.path_of(requested.lock, folder)
    return file.parent if file.suffix == ".toml" else made


def _compiled(
    what: str, requested: Requested, folder: Path, python: str, platform: str | None, made: Path, *, is_new: bool
) -> str:
    """The lock that uv makes of a request.

    Raises:
        DependencyError: It can't be resolved.
    """
    output, constraint_file, overrides = (
        made / name for name in ("pylock.toml", "k8sflow-constraints.txt", "k8sflow-overrides.txt")
    )
    constraint_file.write_text("".join(f"{line}\n" for line in constraints()), encoding="utf-8")
    arguments = ["pip", "compile", "--quiet", "--no-header", "--format=pylock.toml", "-", f"--output-file={output}"]
    arguments += [f"--constraints={constraint_file}", f"--python-version={python}"]
    # An option keeps uv from reading the variable of the same meaning.
    arguments += [f"--constraints={file}" for file in os.environ.get("UV_CONSTRAINT", "").split()]
    if requested.sources:  # a project that k8sflow is used in names it; the step has that of the driver
        overrides.write_text("k8sflow ; python_version < '0'\n", encoding="utf-8")
        arguments += [f"--overrides={file}" for file in os.environ.get("UV_OVERRIDE", "").split()]
        arguments += [f"--overrides={overrides}", f"--project={sources.settings_folder(requested, folder)}"]
    for source in requested.sources:
        path = sources.path_of(source, folder)
        named = os.path.relpath(path, folder) if source.kind is SourceKind.REQUIREMENTS else str(path)
        arguments += [named] if not source.groups or sources.has_project(path) else []
        arguments += [f"--extra={extra}" for extra in source.extras]
        arguments += [f"--group={path}:{group}" for group in source.groups]
    if platform is not None:
        arguments += [f"--python-platform={platform}", "--only-binary=:all:"]
    arguments += ["--refresh"] if is_new else []
    uv.call(what, arguments, folder, "".join(f"{line}\n" for line in requested.requirements))
    return output.read_text(encoding="utf-8")


def answers(lock: Lock, requested: Requested, platform: str | None) -> bool:
    """True if a lock is that of a request, so that a resumed run can keep it.

    Args:
        lock: The lock.
        requested: The request.
        platform: As in ``resolve``.
    """
    if (lock.requirements, lock.platform) != (requested.lines, platform or host_platform()):
        return False
    if not requested.sources or requested.python is not None:
        is_exact = requested.python is None or requested.python[0].isdigit()
        if is_exact and lock.python != platforms.chosen_python("the packages", requested.python, []):
            return False
    return _has_its_folders(lock)


def has_changed(lock: Lock, requested: Requested, folder: Path) -> bool:
    """True if the files that a request names say something else than when it was locked.

    Args:
        lock: The lock.
        requested: The request.
        folder: The flow's folder.
    """
    try:
        return bool(requested.sources) and sources.read("the packages", requested, folder).digest != lock.inputs
    except DependencyError:  # a file is missing, and the lock does without it
        return True


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
    names |= {name for name in re.findall(r"[a-z0-9][a-z0-9-]*", error.cause) if requested.sources}
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


def _key(requested: Requested, folder: Path, python: str, platform: str | None, inputs: str = "") -> str:
    """A name for a request with everything that its answer depends on, apart from what the index has."""
    settings = {
        name: _CREDENTIALS.sub(r"\1", value)
        for name, value in os.environ.items()
        if name.startswith("UV_") and name not in _IRRELEVANT and not _CREDENTIAL.fullmatch(name)
    }
    document: dict[str, Any] = {
        "requirements": requested.lines,
        "inputs": inputs,
        "python": python,
        "platform": platform or host_platform(),
        "implementation": sysconfig.get_config_var("SOABI"),
        "constraints": constraints(),
        "settings": settings,
        "limits": [hashed for name in uv.LIMITS for hashed in _hashes(os.environ.get(name, "").split(), folder)],
        "file": _settings_file(sources.settings_folder(requested, folder)),
        "sources": _local_sources(requested, folder),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _hashes(files: list[str], folder: Path) -> list[str]:
    """Hashes of the contents of files; uv itself explains those that can't be read."""
    found = []
    for file in files:
        try:
            found.append(hashlib.sha256((folder / file).read_bytes()).hexdigest())
        except OSError:
            found.append("")
    return found


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


def _has_its_folders(lock: Lock) -> bool:
    """True if the folders from which a lock's packages are built are as they were, or are not on this machine."""
    return _folders(lock.text).rstrip("\n") in {"", lock.folders}


def _is_current(lock: Lock) -> bool:
    """True if the folders and files of this machine from which a lock's packages are installed are unchanged."""
    if not _has_its_folders(lock):
        return False
    for package in lock.packages if "archive" in lock.text else ():
        if package.is_direct and package.wheel is not None and package.wheel.url.startswith("file:"):
            file = Path(unquote(urlsplit(package.wheel.url).path))
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != package.wheel.sha256:
                return False
    return True


def _folders(text: str) -> str:
    """A line for a lock with packages from folders: after a change of a file, it is another lock."""
    if "directory" not in text:
        return ""
    named = [package["directory"] for package in toml.loads(text).get("packages", ()) if "directory" in package]
    inside: dict[str, object] = {
        folder["path"]: (_metadata if folder.get("editable") else _inside)(Path(folder["path"])) for folder in named
    }
    return f"{FOLDERS}{hashlib.sha256(json.dumps(inside).encode()).hexdigest()}\n" if inside else ""


def _metadata(path: Path) -> list[tuple[str, str]]:
    """The content of the files that say what an editable package needs; its code is used where it is."""
    files = [path / name for name in ("pyproject.toml", "setup.cfg", "setup.py")]
    return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files if file.is_file()]
