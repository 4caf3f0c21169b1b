"""The metadata at the top of a flow's file (PEP 723): ``# /// script``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8sflow import toml
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.package_names import leading, normalized
from k8sflow.flow.decorators.requested import Source, SourceKind

_BLOCK = re.compile(r"(?m)^# /// script[ \t]*\n(?P<content>(?:^#(?:| .*)\n)*?)^# ///[ \t]*$")
_MARK = re.compile(rb"^# /// script", re.MULTILINE)
_OWN = "k8sflow"


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file.

    Args:
        document: Its table.
        first: The number of its first line in the file.
    """

    document: Mapping[str, Any]
    first: int


def source(file: Path, folder: Path) -> Source | None:
    """The file as one that names packages; None where its metadata names none but k8sflow, or it has none.

    Args:
        file: The flow's file.
        folder: The flow's folder.

    Raises:
        DependencyError: The metadata can't be read.
    """
    try:
        data = file.read_bytes()
    except OSError:  # such as a notebook's, which exists in memory only
        return None
    if not _MARK.search(data):
        return None
    found = read(file, data.decode("utf-8-sig", "replace"))
    names = {normalized(leading(str(line))) for line in (found.document.get("dependencies", ()) if found else ())}
    return Source(SourceKind.SCRIPT, os.path.relpath(file, folder)) if names - {_OWN} else None


def read(file: Path, text: str) -> Metadata | None:
    """The metadata in a file's text; None if there is none.

    Args:
        file: The file, for errors.
        text: Its text.

    Raises:
        DependencyError: It can't be read.
    """
    blocks = list(_BLOCK.finditer(text.replace("\r\n", "\n")))
    if not blocks:
        if (mark := re.search(r"(?m)^# /// script[ \t]*$", text)) is None:
            return None
        line = text.count("\n", 0, mark.start()) + 1
        raise _unreadable(file, line, "the block has no end: a line `# ///`, and `# ` or `#` before each line inside")
    first = text.replace("\r\n", "\n").count("\n", 0, blocks[0].start("content")) + 1
    if len(blocks) > 1:
        raise _unreadable(file, text.count("\n", 0, blocks[1].start()) + 1, "there are two blocks, and one may be used")
    inner = "".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines(True))
    try:
        document = toml.loads(inner)
    except toml.TOMLDecodeError as error:
        said = re.search(r"line (\d+)", str(error))
        line = first - 1 + (int(said[1]) if said is not None else inner.count("\n"))
        raise _unreadable(file, line, re.sub(r"\s*\(at .*\)$", "", str(error))) from error
    dependencies = document.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(line, str) for line in dependencies):
        raise _unreadable(file, first, "dependencies is not a list of texts")
    return Metadata(document, first)


def _unreadable(file: Path, line: int, why: str) -> DependencyError:
    return DependencyError(
        f"{file.name}:{line}: the metadata of the file (# /// script) can't be read: {why}.",
        advice="It is TOML, as in https://packaging.python.org/en/latest/specifications/inline-script-metadata/. "
        "`--environment=local` runs the steps without it.",
    )
