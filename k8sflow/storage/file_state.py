"""The state of the files of a flow's folder: what they hold, and whether they have changed since."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from k8sflow.storage.package import files_of

# Of larger files, in a folder that is larger than that, the times stand for the content.
_MOST_READ_BYTES = 100_000_000
_LARGE_BYTES = 1_000_000


def signature(folder: Path, outside: Iterable[str] = ()) -> str:
    """A hash that is another one once a file of a folder was written, added or removed; no file is read.

    The time of a change (ctime) can't be set back by a program.

    Args:
        folder: The folder; files that are never in a code package, or are excluded from it, don't count.
        outside: Other files.

    Raises:
        PackageError: A folder can't be read.
    """
    found = [(name, *_state(path)) for name, path in sorted(files_of(folder))]
    found += [(name, *_state(Path(name))) for name in sorted(outside)]
    return hashed(found)


def data_hash(folder: Path) -> str:
    """A hash of the content of the files of a folder other than Python source.

    Raises:
        PackageError: A folder can't be read.
    """
    files = [(name, path) for name, path in sorted(files_of(folder)) if path.suffix != ".py"]
    is_large = sum(_state(path)[0] for _, path in files) > _MOST_READ_BYTES
    return hashed([(name, *_content(path, is_large=is_large)) for name, path in files])


def source_hash(folder: Path, outside: Iterable[str], bodies: Iterable[tuple[str, str]]) -> str:
    """A hash of the Python source of a folder and of other files, whatever its comments and its layout.

    Args:
        folder: The folder.
        outside: Other files.
        bodies: Functions whose bodies don't count, as the names of a class and of its method.

    Raises:
        PackageError: A folder can't be read.
    """
    skipped = frozenset(bodies)
    files = [(name, path) for name, path in sorted(files_of(folder)) if path.suffix == ".py"]
    files += [(name, Path(name)) for name in sorted(outside)]
    return hashed([(name, _source(path, skipped)) for name, path in files])


def hashed(value: object) -> str:
    """The hash of a value of lists, texts and numbers."""
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), default=str).encode("utf-8", "replace")).hexdigest()[
        :32
    ]


def newest_change(folder: Path, outside: Iterable[str] = ()) -> tuple[float, str]:
    """The time of the newest change of a file, in seconds since 1970, and the file."""
    paths = [path for _, path in files_of(folder)] + [Path(name) for name in outside]
    return max(((max(_state(path)[1:3]) / 1e9, str(path)) for path in paths), default=(0.0, ""))


def _state(path: Path) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116  a hundred thousand of them
    except OSError:
        return (0, 0, 0, 0)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _content(path: Path, *, is_large: bool) -> tuple[object, ...]:
    state = _state(path)
    if is_large and state[0] > _LARGE_BYTES:
        return state
    try:
        with path.open("rb") as file:
            return (
                (hashlib.file_digest(file, "sha256").hexdigest(),)
                if hasattr(hashlib, "file_digest")
                else (hashlib.sha256(file.read()).hexdigest(),)
            )
    except OSError:
        return state


def _source(path: Path, skipped: frozenset[tuple[str, str]]) -> str:
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return hashlib.sha256(data).hexdigest()
    for parent in ast.walk(tree):
        if isinstance(parent, ast.ClassDef):
            parent.body = list(_without(parent, skipped))
    return ast.dump(tree)


def _without(parent: ast.ClassDef, skipped: frozenset[tuple[str, str]]) -> Iterator[ast.stmt]:
    for statement in parent.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and (parent.name, statement.name) in skipped:
            continue
        yield statement
