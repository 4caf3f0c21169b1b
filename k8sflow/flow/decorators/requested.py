"""The packages that a step asks for: values, and the parsers of the options that name them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.package_names import bare, normalized

_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[A-Za-z0-9._,\s-]*\])?")
_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")
_PYTHONS = re.compile(r"((~=|[<>=!]=|[<>])\s*\d+(\.\d+|\.\*)*\s*(,\s*|$))+")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.*+!_-]*")
_OPERATORS = ("<", ">", "=", "!", "~")
_SOURCES = ("git+", "http://", "https://", "file:", "./", "../", "/")
_EXTRA = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


class SourceKind(Enum):
    """The kinds of files that name packages."""

    REQUIREMENTS = "requirements"
    PYPROJECT = "pyproject"
    LOCK = "lock"
    SCRIPT = "script"


@dataclass(frozen=True)
class Source:
    """A file that names packages.

    Args:
        kind: What it is.
        file: Its path; a relative one starts at the folder of the flow's file.
        groups: The dependency groups that are added, of a project.
        extras: The optional dependencies that are added, of a project.
    """

    kind: SourceKind
    file: str
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The file as one of the lines that say what was asked for."""
        added = [
            *([f"extras {', '.join(self.extras)}"] if self.extras else []),
            *([f"groups {', '.join(self.groups)}"] if self.groups else []),
        ]
        return f"{self.kind.value}: {self.file}{' with ' if added else ''}{' and '.join(added)}"


@dataclass(frozen=True)
class Requested:
    """The environment that a step asks for.

    Args:
        requirements: The packages, as lines of a requirements file, in alphabetical order.
        python: The version of Python, such as ``3.12``, or a condition, such as ``>=3.11``; None for that of the run.
        sources: The files that name further packages.
    """

    requirements: tuple[str, ...]
    python: str | None = None
    sources: tuple[Source, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Everything that was asked for, apart from Python."""
        return (*self.requirements, *(source.line for source in self.sources))

    @property
    def project(self) -> Source | None:
        """The project or the lock among the sources, whose settings of uv count; None without one."""
        kinds = {SourceKind.PYPROJECT, SourceKind.LOCK}
        return next((source for source in self.sources if source.kind in kinds), None)

    @property
    def lock(self) -> Source | None:
        """The lock that has all packages; None where they are resolved."""
        return next((source for source in self.sources if source.kind is SourceKind.LOCK), None)


def packages(value: object) -> dict[str, str]:
    """The packages of an option: names, and the rest of each one's line in a requirements file.

    Raises:
        ValueError: A name or a version can't be used.
    """
    found: dict[str, str] = {}
    for written, version in parsers.table(value).items():
        name, at, address = str(written).partition("@")
        if not isinstance(written, str) or not _NAME.fullmatch(name.strip()):
            raise ValueError(f"{written!r} can't be the name of a package")
        if isinstance(version, bool | float) or not isinstance(version, str | int | None):
            raise ValueError(f"the version of {name!r} has to be a text, such as '2.10': a number would be 2.1")  # noqa: TRY004  one refusal
        if normalized(bare(name)) in {normalized(bare(other)) for other in found}:
            raise ValueError(f"{name!r} is named twice")
        condition = "" if version is None else str(version).strip()
        if at and condition:
            raise ValueError(f"{written!r} has an address, so it can't have the version {condition!r} too")
        found[name.strip()] = _condition(name, f"@{address}" if at else condition)
    return found


def _condition(name: str, version: str) -> str:
    """The rest of a package's line in a requirements file."""
    if "\n" in version:
        raise ValueError(f"the version of {name!r} has more than one line")
    if version in {"", "*"}:
        return ""
    if version.startswith("@"):
        return f" @ {version[1:].strip()}"
    if version.startswith(_SOURCES):
        return f" @ {version}"
    if version.startswith(_OPERATORS):
        return version
    first, comma, rest = version.partition(",")
    if not _VERSION.fullmatch(first.strip()) or (comma and not rest.strip().startswith(_OPERATORS)):
        raise ValueError(f"{version!r} is not a version of {name!r}")
    return f"=={version}"


def python(value: object) -> str | None:
    """A version of Python, or a condition; None for an empty text, as a file's parser has it.

    Raises:
        ValueError: It is neither.
    """
    if value == "":
        return None
    found = value.strip().removesuffix(".*") if isinstance(value, str) else ""
    if not _PYTHON.fullmatch(found) and not _PYTHONS.fullmatch(found):
        raise ValueError(f"{value!r} is not a version of Python such as '3.12', or a condition such as '>=3.11'")
    return found


def names(value: object) -> tuple[str, ...]:
    """The names of groups or extras.

    Raises:
        ValueError: One can't be a name.
    """
    found = tuple(str(name).strip() for name in parsers.listed(value, "names"))
    for name in found:
        if not _EXTRA.fullmatch(name):
            raise ValueError(f"{name!r} can't be the name of a group or an extra")
    return tuple(dict.fromkeys(found))


def file(value: object) -> str:
    """The path of a file.

    Raises:
        ValueError: It is neither a text nor a path.
    """
    return parsers.text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def files(value: object) -> tuple[str, ...]:
    """The paths of one file or of several.

    Raises:
        ValueError: One is not a text.
    """
    found = tuple(file(name) for name in (value if isinstance(value, list | tuple) else [value]))
    if not found:
        raise ValueError("no file is named")
    return found


def line(name: str, condition: str, extras: Mapping[str, Sequence[str]]) -> str:
    """The line of a package in a requirements file.

    Args:
        name: Its name, with or without extras.
        condition: The rest of the line.
        extras: Further extras of packages, by name.
    """
    package = bare(name)
    inside = name.strip()[len(package) :].strip().strip("[]")
    written = [part.strip() for part in inside.split(",") if part.strip()]
    more = [extra for key, found in extras.items() if normalized(key) == normalized(package) for extra in found]
    every = ",".join(dict.fromkeys([*written, *more]))
    return f"{package}[{every}]{condition}" if every else f"{package}{condition}"
