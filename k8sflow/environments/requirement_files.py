"""Reads requirements files as far as k8sflow has to know them; uv resolves what they say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.package_names import leading, normalized

_COMMENT = re.compile(r"(^|\s+)#.*$")
_INCLUDE = re.compile(r"(-r|-c|--requirements?|--constraints?)(?:\s*=\s*|\s+|(?<=-[rc]))(?P<file>\S.*)")
_INDEX = re.compile(r"(-i|-f|--index-url|--extra-index-url|--find-links|--index|--default-index)(?:\s*=\s*|\s+)(\S+)")
_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_LOCAL = re.compile(
    r"(?:(?:-e|--editable)[\s=]+|[^@\s]+\s*@\s*)?(?:file://)?(?P<path>(?:\.{0,2}/|[\w.-]+/)?[^\s;#\[]+)"
)
_ADVICE = "A relative path starts at the folder of the flow's file; one inside of a file, at the folder of that file."


@dataclass(frozen=True)
class Entry:
    """One line of a requirements file; a line that continues is one.

    Args:
        file: The file.
        number: The number of the line, from 1.
        text: The line, without comments.
        is_constraint: Whether the file only constrains versions.
    """

    file: Path
    number: int
    text: str
    is_constraint: bool = False


def entries(what: str, file: Path) -> list[Entry]:
    """The lines of a requirements file, and of those that it includes.

    Args:
        what: The environment, as the subject of an error.
        file: The file.

    Raises:
        DependencyError: A file can't be read.
    """
    return list(_entries(what, file, f"{file}", is_constraint=False, seen=set()))


def content(what: str, file: Path, named: str = "") -> str:
    """The text of a file that names packages.

    Args:
        what: The environment, as the subject of an error.
        file: The file.
        named: Where it is named, if not by a decorator.

    Raises:
        DependencyError: It can't be read.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8: {error.reason}"
        where = f" ({named} names it)" if named else ""
        raise DependencyError(
            f"{what} can't be resolved: {file}{where} can't be read: {reason}.", advice=_ADVICE
        ) from error


def _entries(what: str, file: Path, named: str, *, is_constraint: bool, seen: set[Path]) -> Iterator[Entry]:
    if file in seen:
        return
    seen.add(file)
    text = content(what, file, "" if named == str(file) else named)
    for number, line in _logical_lines(text):
        include = _INCLUDE.fullmatch(line)
        yield Entry(file, number, line, is_constraint)
        if include is not None and "://" not in include["file"]:
            inner = Path(os.path.normpath(file.parent / _expanded(include["file"].strip("\"'"))))
            is_inner = is_constraint or "c" in include[1].lstrip("-")[:1]
            yield from _entries(what, inner, f"{file}:{number}", is_constraint=is_inner, seen=seen)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    held, first = "", 0
    for number, written in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", written)
        first = first if held else number
        held += line.rstrip("\\") if line.endswith("\\") else line
        if line.endswith("\\"):
            held += " "
            continue
        if held.strip():
            yield first, held.strip()
        held = ""
    if held.strip():
        yield first, held.strip()


def _expanded(text: str) -> str:
    """A text with the variables of the environment that it names, as pip and uv read it."""
    return _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), text)


def facts(found: Sequence[Entry]) -> list[object]:
    """Everything that the answer to some lines depends on: themselves, variables, and local files.

    Args:
        found: The lines.
    """
    said: list[object] = []
    for entry in found:
        said.append((str(entry.file), entry.text, _expanded(entry.text) if "${" in entry.text else ""))
        local = _LOCAL.match(_expanded(entry.text))
        if local is not None and "://" not in local["path"]:
            for folder in (entry.file.parent, Path.cwd()):
                path = folder / local["path"]
                if path.is_file():
                    status = path.stat()
                    said.append((status.st_size, status.st_mtime_ns))
    return said


def indexes(found: Sequence[Entry]) -> list[str]:
    """The addresses of the indexes that some lines name."""
    options = (_INDEX.match(_expanded(entry.text)) for entry in found)
    return [option[2] for option in options if option is not None]


@dataclass(frozen=True)
class Hashes:
    """The hashes that requirements files have for packages.

    Args:
        allowed: By the package's normalized name, the line, and the hashes, such as ``sha256:…``.
        is_required: Whether every package has to have some, as by ``--require-hashes``.
    """

    allowed: dict[str, tuple[str, frozenset[str]]]
    is_required: bool = False


def hashes(found: Sequence[Entry]) -> Hashes:
    """The hashes in some lines."""
    allowed: dict[str, tuple[str, frozenset[str]]] = {}
    for entry in found:
        here = frozenset(written.lower() for written in _HASH.findall(entry.text))
        name = normalized(leading(entry.text))
        if here and name:
            where, before = allowed.get(name, (f"{entry.file.name}:{entry.number}", frozenset()))
            allowed[name] = where, before | here
    return Hashes(allowed, any(entry.text == "--require-hashes" for entry in found))
