"""The code package: the flow's folder as one archive, the same bytes for the same files.

It is content-addressed: a run whose code did not change uploads nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import all_suffixes
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from k8sflow import units
from k8sflow.errors import PackageError
from k8sflow.storage.objects import Buffer

IGNORE_FILE = ".k8sflowignore"
_NEVER = {"__pycache__", "node_modules"}
_BIGGEST_SHOWN = 5
_MOST_NAMED = 3
# Code is never left out for its size.
_CODE = (".py", ".pyi", ".so", ".pyd", ".R", ".ipynb", ".toml", ".yaml", ".yml", ".sh", ".sql")
# Endings of more that programs are loaded from: shared libraries, with their versions, and archives of modules.
_LOADABLE = re.compile(r"\.(so(\.\d+)+|dylib|dll|egg|whl|jar|pyz|pyc)$", re.IGNORECASE)
_SPECIAL = re.compile(r"([\\*?\[\]])")
_MOST_LOOKS = 3


@dataclass(frozen=True)
class Rules:
    """The rules by which large files are left out of a code package.

    Args:
        suffixes: Files whose names end so are kept, whatever their size; those of code always are.
        file_limit_bytes: The size from which other files are left out.
        limit_bytes: The size of all files, above which the largest of the others are left out too.
    """

    suffixes: tuple[str, ...] = ()
    file_limit_bytes: int = 10_000_000
    limit_bytes: int = 100_000_000


@dataclass(frozen=True)
class Package:
    """A code package.

    Args:
        sha256: Hash of the archive, its name in the store.
        archive: The tar.gz file.
        files: How many files it holds.
        left_out: The files that are too large, by name, with their sizes in bytes.
    """

    sha256: str
    archive: bytes
    files: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def warning(self) -> str | None:
        """One line about the files that are left out; None if there are none."""
        if not self.left_out:
            return None
        largest = sorted(self.left_out.items(), key=lambda pair: -pair[1])
        named = ", ".join(f"{_in_one_line(name)} ({units.size(size)})" for name, size in largest[:_MOST_NAMED])
        more = f" and {len(largest) - _MOST_NAMED} more" if len(largest) > _MOST_NAMED else ""
        return (
            f"the code package leaves out large files: {named}{more}. "
            f'A line "{_pattern_that_keeps(largest[0][0])}" in {IGNORE_FILE} keeps one.'
        )


def _in_one_line(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _pattern_that_keeps(name: str) -> str:
    """The line of the ignore file for one file: what has a meaning in a pattern is written with a backslash."""
    pattern = _SPECIAL.sub(r"\\\1", name)
    if pattern.endswith(" "):
        pattern = f"{pattern[:-1]}\\ "
    return f"!{_in_one_line(pattern) if '/' in name else '/' + _in_one_line(pattern)}"


def build(folder: Path, rules: Rules | None = None) -> Package:
    """The code package of a folder: all its files except hidden ones, caches, virtual environments and ignored ones.

    A file ``.k8sflowignore`` in the folder excludes more, by the rules of a ``.gitignore``: ``/data/``, ``*.csv``,
    ``!small.csv``. It can't bring back files that are always excluded. Large files that are not code are left out too,
    unless a line with ``!`` keeps them.

    A file that vanishes meanwhile, such as an editor's temporary one, is left out: the folder is looked at again.

    Raises:
        PackageError: The folder is too big, a file can't be read, or the ignore file has an invalid pattern.
    """
    for _ in range(_MOST_LOOKS - 1):
        with contextlib.suppress(_VanishedError):
            return _build(folder, rules or Rules())
    return _build(folder, rules or Rules())


class _VanishedError(PackageError):
    """A file or folder was there a moment ago."""


def _build(folder: Path, rules: Rules) -> Package:
    is_ignored = _ignored(folder)
    files = sorted(_files(folder, is_ignored))
    sizes = {name: _size_of(path) for name, path in files}
    left_out = _too_large(folder, sizes, is_ignored, rules)
    files = [(name, path) for name, path in files if name not in left_out]
    _refuse_too_big(folder, {name: sizes[name] for name, _ in files}, rules.limit_bytes)
    raw = io.BytesIO()
    # mtime 0 here and in the entries: the same files give the same bytes.
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files:
            _add(archive, name, path)
    data = raw.getvalue()
    return Package(hashlib.sha256(data).hexdigest(), data, len(files), left_out)


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """The names and paths of the files that a folder's code package has, in no order.

    Raises:
        PackageError: A folder can't be read, or the ignore file has an invalid pattern.
    """
    return _files(folder, _ignored(folder))


def modules(folder: Path) -> tuple[str, ...]:
    """The names under which Python imports the files and packages directly in a folder."""
    found = set()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.partition(".")[0]
            is_module = entry.name.endswith(tuple(all_suffixes())) or Path(entry.path, "__init__.py").is_file()
            if name.isidentifier() and is_module:
                found.add(name)
    return tuple(sorted(found))


def code_hashes(folder: Path, file: str) -> dict[str, str]:
    """The hashes of a flow's file and of the loaded modules from its folder, by file name relative to the folder.

    Args:
        folder: The folder from which the flow's modules are imported.
        file: The flow's file, relative to the folder.
    """
    own = set(modules(folder))
    files = {folder / file}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name.partition(".")[0] in own and isinstance(path, str) and path.endswith(".py"):
            files.add(Path(path).resolve())
    inside = sorted(path for path in files if path.is_relative_to(folder))
    return {path.relative_to(folder).as_posix(): found for path in inside if (found := file_hash(path))}


def file_hash(file: Path) -> str:
    """The first half of a file's sha256; empty if it can't be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:32]
    except OSError:
        return ""


def extract(archive: Buffer, sha256: str, folder: Path) -> None:
    """Checks the hash of a code package and unpacks it.

    Raises:
        PackageError: The archive is not the one with which the run was started.
    """
    found = hashlib.sha256(archive).hexdigest()
    if found != sha256:
        raise PackageError(
            f"the code package is damaged: its sha256 is {found}, but {sha256} was uploaded.",
            advice="Start the run again.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # Python 3.10 before 3.10.12; the hash shows that k8sflow made the archive
            tar.extractall(folder)  # noqa: S202


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        data = path.read_bytes()
        executable = path.stat().st_mode & stat.S_IXUSR
    except OSError as error:
        raise _unreadable(path, error) from error
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o755 if executable else 0o644
    archive.addfile(entry, io.BytesIO(data))


def _unreadable(path: Path, error: OSError) -> PackageError:
    if isinstance(error, FileNotFoundError):
        return _VanishedError(
            f"{path} vanished while the code package was created.",
            cause="Something keeps creating and deleting files in the flow's folder.",
            advice=f"Exclude them by a line in {IGNORE_FILE}.",
        )
    return PackageError(
        f"{path} can't be read for the code package: {error.strerror}.",
        advice=f"Make it readable, or exclude it by a line in {IGNORE_FILE}.",
    )


def _files(folder: Path, is_ignored: Callable[[str], bool | None]) -> Iterator[tuple[str, Path]]:
    """Names and paths of the package's files; links are followed, but not to a folder that contains them."""
    waiting = [(folder, frozenset(_identity(around.stat()) for around in (folder, *folder.resolve().parents)))]
    while waiting:
        here, around = waiting.pop()
        entries = _entries(here)
        if here != folder and any(path.name == "pyvenv.cfg" for path, _ in entries):
            continue
        for path, status in entries:
            name = path.relative_to(folder).as_posix()
            if path.name.startswith(".") or path.name in _NEVER or path.name.endswith(".egg-info"):
                continue
            if path.name.endswith(".pyc") and not _is_module_without_source(path):
                continue
            if stat.S_ISREG(status.st_mode):
                if not is_ignored(name):
                    yield name, path
            elif stat.S_ISDIR(status.st_mode) and _identity(status) not in around and not is_ignored(f"{name}/"):
                waiting.append((path, around | {_identity(status)}))


def _is_module_without_source(path: Path) -> bool:
    """True for a compiled module that this Python imports from beside the others; one of a cache is compiled again."""
    try:
        with path.open("rb") as file:
            return not path.with_suffix(".py").exists() and file.read(len(MAGIC_NUMBER)) == MAGIC_NUMBER
    except OSError:
        return False


def _entries(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The content of a folder, with links resolved."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # A link without a target is not code: FileNotFoundError, or ELOOP for a link to itself.
                with contextlib.suppress(OSError):
                    found.append((folder / entry.name, entry.stat()))
    except OSError as error:
        raise _unreadable(folder, error) from error
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _ignored(folder: Path) -> Callable[[str], bool | None]:
    """A test for the names that the ignore file excludes; the name of a folder ends with a slash.

    The test returns False for names that a line with ``!`` keeps, and None for those that no line matches.
    """
    path = folder / IGNORE_FILE
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return lambda _: None
    except OSError as error:
        raise PackageError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise PackageError(f"{path} can't be read: {error}.", advice="Save it as UTF-8.") from error
    from pathspec import GitIgnoreSpec  # noqa: PLC0415  only for folders with such a file

    for number, line in enumerate(lines, 1):
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError as error:
            raise PackageError(
                f"{path}, line {number}: {line!r} is not a pattern.",
                advice="The file has the syntax of a .gitignore: https://git-scm.com/docs/gitignore",
            ) from error
    spec = GitIgnoreSpec.from_lines(lines)
    return lambda name: spec.check_file(name).include


def _archives_of_modules(folder: Path) -> set[str]:
    """The files of a folder that Python imports from, such as a zip that the flow put on ``sys.path``."""
    entries = {Path(entry).resolve() for entry in sys.path if isinstance(entry, str) and entry}
    here = folder.resolve()
    return {path.relative_to(here).as_posix() for path in entries if path != here and path.is_relative_to(here)}


def _too_large(
    folder: Path, sizes: Mapping[str, int], is_ignored: Callable[[str], bool | None], rules: Rules
) -> dict[str, int]:
    """The files that the rules leave out, the largest first, with their sizes."""
    kept = (*_CODE, *rules.suffixes)
    paths = _archives_of_modules(folder)
    others = [
        name
        for name in sizes
        if not name.endswith(kept)
        and not _LOADABLE.search(name)
        and is_ignored(name) is not False
        and name not in paths
    ]
    total, found = sum(sizes.values()), {}
    for name in sorted(others, key=lambda name: (-sizes[name], name)):
        if sizes[name] < rules.file_limit_bytes and total <= rules.limit_bytes:
            break
        found[name] = sizes[name]
        total -= sizes[name]
    return found


def _refuse_too_big(folder: Path, sizes: Mapping[str, int], limit: int) -> None:
    total = sum(sizes.values())
    if total <= limit:
        return
    largest = sorted(((size, name) for name, size in sizes.items()), reverse=True)[:_BIGGEST_SHOWN]
    biggest = "".join(f"\n    {units.size(size):>8}  {name}" for size, name in largest)
    raise PackageError(
        f"the code package of {folder} would have {units.size(total)}; the limit is {units.size(limit)}.",
        cause=f"It holds all code in the flow's folder, and files that were named to be kept. The biggest:{biggest}",
        advice=f"Move data out of the folder, or exclude it by a line in {folder / IGNORE_FILE}.",
    )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
