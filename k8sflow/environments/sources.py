"""The files in which a step's packages are named: what they say, apart from what uv makes of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k8sflow import toml
from k8sflow.environments import platforms, requirement_files, script_metadata
from k8sflow.environments.requirement_files import Entry, Hashes
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.requested import Requested, Source, SourceKind

_LOCK = re.compile(r"uv\.lock|.*\.py\.lock|pylock\.([^.]+\.)?toml")
_MEMBER = re.compile(r"source = \{ (?:editable|directory|virtual) = (\"(?:[^\"\\]|\\.)*\")")


@dataclass(frozen=True)
class Inputs:
    """The facts that the files of a request state.

    Args:
        digest: A hash of everything in them that counts; empty without files.
        pythons: Where a file has a condition for Python, and the condition.
        hashes: The hashes of requirements files.
        indexes: The addresses of the indexes that they name.
    """

    digest: str = ""
    pythons: tuple[tuple[str, str], ...] = ()
    hashes: Hashes = field(default_factory=lambda: Hashes({}))
    indexes: tuple[str, ...] = ()


def settings_folder(requested: Requested, folder: Path) -> Path:
    """The folder in which, and above which, uv looks for its settings: that of the project, or of the flow's file.

    Args:
        requested: The request.
        folder: The flow's folder.
    """
    return folder if requested.project is None else path_of(requested.project, folder).parent


def path_of(source: Source, folder: Path) -> Path:
    """A file that a request names, as an absolute path.

    Args:
        source: The file.
        folder: The flow's folder.
    """
    return Path(os.path.normpath(folder / os.path.expanduser(source.file)))  # noqa: PTH111  it keeps what it can't expand


def read(what: str, requested: Requested, folder: Path) -> Inputs:
    """The facts that the files of a request state.

    Args:
        what: The environment, as the subject of an error.
        requested: The request.
        folder: The flow's folder.

    Raises:
        DependencyError: A file can't be read.
    """
    if not requested.sources:
        return Inputs()
    said: list[object] = []
    pythons: list[tuple[str, str]] = []
    entries: list[Entry] = []
    indexes: list[str] = []
    for source in requested.sources:
        _check_name(what, source)
        file = path_of(source, folder)
        match source.kind:
            case SourceKind.REQUIREMENTS:
                entries += requirement_files.entries(what, file)
            case SourceKind.SCRIPT:
                text = requirement_files.content(what, file)
                metadata = script_metadata.read(file, text)
                document = metadata.document if metadata is not None else {}
                said.append(document)
                _check_lines(what, file, text, document.get("dependencies", ()))
                pythons += _python(f"{file.name}:{metadata.first if metadata else 1}", document)
                indexes += _indexes(document)
            case SourceKind.PYPROJECT | SourceKind.LOCK:
                for part in (file,) if source.kind is SourceKind.PYPROJECT else _parts_of_lock(what, file):
                    text = requirement_files.content(what, part)
                    said.append(text)
                    document = parsed(what, part, text)
                    _check_project(what, part, document, source)
                    _check_lines(what, part, text, _dependencies(document))
                    pythons += _python(part.name, document.get("project", {}))
    said += requirement_files.facts(entries)
    digest = hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()
    indexes += requirement_files.indexes(entries)
    return Inputs(digest, tuple(dict.fromkeys(pythons)), requirement_files.hashes(entries), tuple(indexes))


def indexes(requested: Requested, folder: Path) -> tuple[str, ...]:
    """The addresses with credentials of the indexes that the files of a request name; a lock has no credentials.

    Args:
        requested: The request.
        folder: The flow's folder.
    """
    try:
        return tuple(address for address in read("the packages", requested, folder).indexes if "@" in address)
    except DependencyError:  # a resumed run does without the files
        return ()


def _check_name(what: str, source: Source) -> None:
    """Refuses a file of another kind, of which the messages would be obscure.

    Raises:
        DependencyError: It is one.
    """
    name = Path(source.file).name
    match source.kind:
        case _ if "://" in source.file:
            why, advice = "an address, and not a file", "Download it into the folder of the flow's file, and name it."
        case SourceKind.PYPROJECT if name != "pyproject.toml":
            why, advice = "not a pyproject.toml", "For a requirements file write requirements=, for a lock lock=."
        case SourceKind.REQUIREMENTS if name.endswith((".toml", ".yml", ".yaml", ".py")) or name == "uv.lock":
            why = "not a requirements file"
            advice = (
                "Write pyproject= or lock= for the files of a project. For an environment.yml of conda write "
                "Config('deps', default='environment.yml', parser=conda_environment_yml_parser) in the flow, and "
                "@conda_base(packages=config_expr('deps.packages'))."
            )
        case SourceKind.LOCK if not _LOCK.fullmatch(name):
            why = "not a lock that k8sflow reads"
            advice = (
                "It reads uv.lock, pylock.toml, and the lock of a script (flow.py.lock). For a requirements file "
                "write requirements=."
            )
        case _:
            return
    raise DependencyError(f"{what} can't be resolved: {source.file} is {why}.", advice=advice)


def has_project(file: Path) -> bool:
    """True if a pyproject.toml has a project, and not groups of dependencies alone."""
    return "project" in toml.loads(file.read_text(encoding="utf-8-sig"))


def _check_project(what: str, file: Path, document: Mapping[str, Any], source: Source) -> None:
    """Refuses a project whose dependencies are elsewhere.

    Raises:
        DependencyError: It is such a one.
    """
    tables = [document.get(name, {}) for name in ("project", "dependency-groups", "tool")]
    tables += [tables[0].get("optional-dependencies", {})] if isinstance(tables[0], Mapping) else []
    advice = "See https://packaging.python.org/en/latest/specifications/pyproject-toml/."
    if not all(isinstance(table, Mapping) for table in tables):
        why = "has a value where a table belongs: project, dependency-groups or tool"
    elif source.kind is SourceKind.LOCK or (source.groups and "project" not in document):
        return
    elif "project" not in document:
        why = "has no table [project], which names the packages"
        advice = "Poetry 2 and others write it too; `uvx migrate-to-uv` makes it of an older file."
    elif "dependencies" in document["project"].get("dynamic", ()):
        why = "has dynamic dependencies, which only a build knows"
        advice = "If they come from a requirements file, name that: requirements=."
    else:
        return
    raise DependencyError(f"{what} can't be resolved: {file} {why}.", advice=advice)


def _dependencies(document: Mapping[str, Any]) -> list[object]:
    """Every requirement that a pyproject.toml has."""
    project = document.get("project", {})
    lists = [
        project.get("dependencies", ()),
        *project.get("optional-dependencies", {}).values(),
        *document.get("dependency-groups", {}).values(),
    ]
    return [line for listed in lists for line in listed]


def _check_lines(what: str, file: Path, text: str, lines: Sequence[object]) -> None:
    """Refuses a requirement that can't be read, with its line; uv would look for another way to get at the others.

    Raises:
        DependencyError: There is one.
    """
    for written in lines:
        if not isinstance(written, str):  # such as the name of another group
            continue
        module = platforms.packaging(what).requirements
        try:
            module.Requirement(written)
        except module.InvalidRequirement as error:
            before, found, _ = text.partition(json.dumps(written, ensure_ascii=False))
            where = f"{file}:{before.count(chr(10)) + 1}" if found else str(file)
            raise DependencyError(
                f"{what} can't be resolved: {where} is not valid.",
                cause=f"{written!r} is not a requirement: {error}",
                advice="Write for example 'pandas>=2.2,<3'.",
            ) from error


def parsed(what: str, file: Path, text: str) -> dict[str, Any]:
    """The table in a file in TOML.

    Args:
        what: The environment, as the subject of an error.
        file: The file.
        text: Its text.

    Raises:
        DependencyError: It isn't TOML.
    """
    try:
        found: dict[str, Any] = toml.loads(text)
    except toml.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = f"{file}:{line[1]} is not TOML" if line is not None else f"{file} is not TOML at its end"
        raise DependencyError(
            f"{what} can't be resolved: {where}.",
            cause=f"{error}.",
            advice="uv and pip can't read it either: `uv lock --check` in its folder says the same.",
        ) from error
    return found


def _parts_of_lock(what: str, file: Path) -> Iterator[Path]:
    """The files that a lock consists of: itself, and the projects that it is made from."""
    yield file
    text = requirement_files.content(what, file)
    if file.name == "uv.lock":
        folders = {".", *(str(json.loads(name)) for name in _MEMBER.findall(text))}
        for folder in sorted(folders):
            project = file.parent / folder / "pyproject.toml"
            if folder == "." or project.is_file():
                yield project


def _python(where: str, document: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = document.get("requires-python")
    return [(where, found)] if isinstance(found, str) else []


def _indexes(document: Mapping[str, Any]) -> list[str]:
    settings = document.get("tool", {}).get("uv", {})
    named = [index.get("url", "") for index in settings.get("index", ())]
    for table in (settings, settings.get("pip", {})):
        for key in ("index-url", "extra-index-url", "find-links"):
            value = table.get(key, ())
            named += [value] if isinstance(value, str) else value
    return [name for name in named if isinstance(name, str)]


def located(error: DependencyError, requested: Requested, folder: Path) -> DependencyError:
    """An error of uv with the line of the file that it is about, where it is about one.

    Args:
        error: The error.
        requested: The request.
        folder: The flow's folder.
    """
    cause = error.cause
    lines = [*_positions(cause, folder), *_lines_of_script(cause, requested, folder)]
    if not lines or "accessing remote" in cause:
        return error
    what, _, _ = error.summary.partition(" can't be ")
    return DependencyError(
        f"{what} can't be resolved: {lines[-1]} is not valid.", cause=cause, advice="Correct the line."
    )


def _positions(cause: str, folder: Path) -> Iterator[str]:
    """The lines of requirements files that uv's explanation names by the number of a character."""
    for name, position in re.findall(r"`([^`]+)` at position (\d+)", cause):
        try:
            before = (folder / name).read_bytes()[: int(position)]
        except OSError:
            continue
        lines = before.count(b"\n") + 1
        yield f"{name}:{lines}"
    for name, line in re.findall(r":\s+(\S+):(\d+):\d+$", cause, re.MULTILINE):
        yield f"{name}:{line}"


def _lines_of_script(cause: str, requested: Requested, folder: Path) -> Sequence[str]:
    source = next((source for source in requested.sources if source.kind is SourceKind.SCRIPT), None)
    found = re.search(r"TOML parse error at line (\d+)", cause)
    if source is None or found is None or "Failed to parse" in cause:
        return ()
    file = path_of(source, folder)
    metadata = script_metadata.read(file, file.read_text(encoding="utf-8-sig"))
    return () if metadata is None else (f"{file.name}:{metadata.first + int(found[1]) - 1}",)
