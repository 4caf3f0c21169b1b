"""The source of a run's own modules as it was when the run started.

Tasks import the flow's file and the modules beside it long after that, when they may have been edited or another branch
checked out. So their source is kept, and both Python's import and tracebacks use what was kept.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import linecache
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import cast

from k8sflow.executors.fork_server.preload_plan import is_library
from k8sflow.started import working_folder

# A flow may lie in a folder that holds anything: so many modules that aren't loaded yet are kept, and no more.
_MOST_FILES = 1_000
_MOST_BYTES = 20_000_000
_INIT = "__init__.py"


def take(script: Path, folder: Path, modules: Iterable[ModuleType]) -> dict[str, bytes]:
    """The source by file: of the script, of the user's modules that are loaded, and of what lies beside those.

    That is what lies below the script's folder, and in the user's packages elsewhere, such as editable installs.

    Args:
        script: The script.
        folder: The folder that the script's modules are imported from.
        modules: The modules that are loaded.
    """
    files, folders = [str(script)], [folder]
    for module in list(modules):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and not is_library(module):
            files.append(file)
            if hasattr(module, "__path__") and "." not in module.__name__:
                folders.append(Path(file).parent)
    found: dict[str, bytes] = {}
    for file in dict.fromkeys(files):
        _add(found, file)
    size = 0
    for file in (file for each in folders for file in _modules_below(each)):
        if file not in found:
            _add(found, file)
            size += len(found.get(file, b""))
        if len(found) >= _MOST_FILES or size > _MOST_BYTES:
            break
    return found


def _add(found: dict[str, bytes], file: str) -> None:
    try:
        found[file] = Path(file).read_bytes()
    except OSError:  # Python, which reads it itself then, says what is wrong with it
        return


def _modules_below(folder: Path) -> Iterator[str]:
    """The modules that can be imported from a folder: those in it, and those of its packages."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(".py"):
            yield entry.path
        elif entry.name.isidentifier() and entry.is_dir() and Path(entry.path, _INIT).is_file():
            yield from _modules_below(Path(entry.path))


class SnapshotFinder:
    """Imports modules from their kept source, where Python would have found them.

    Args:
        sources: The source by file.
    """

    def __init__(self, sources: Mapping[str, bytes]) -> None:
        self._sources = sources
        self._codes: dict[str, CodeType] = {}
        self._folders = {os.path.dirname(file) for file in sources}  # noqa: PTH120  called for each module
        self._names = {_module_name(file) for file in sources}
        for file, source in sources.items():
            lines = importlib.util.decode_source(source).splitlines(keepends=True) if _is_text(source) else []
            linecache.cache[file] = (len(source), None, lines, file)

    def code(self, file: str) -> CodeType | None:
        """The code of a file's kept source; None where there is none.

        Raises:
            SyntaxError: It can't be compiled.
        """
        if file not in self._sources:
            return None
        if file not in self._codes:
            self._codes[file] = compile(self._sources[file], file, "exec", dont_inherit=True)
        return self._codes[file]

    def is_best_cached(self, file: str) -> bool:
        """True if a file is as it was kept and not compiled yet: then Python's own cache saves the time."""
        if file in self._codes:
            return False
        with contextlib.suppress(OSError):
            return Path(file).read_bytes() == self._sources.get(file)
        return False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds a module, as the import system asks it to (importlib.abc.MetaPathFinder)."""
        last = name.rpartition(".")[2]
        if last not in self._names:
            return None
        for entry in sys.path if path is None else path:
            if not isinstance(cast("object", entry), str):  # Python skips those too
                continue
            folder = _absolute(entry)
            if folder in self._folders or os.path.join(folder, last) in self._folders:  # noqa: PTH118
                for file in (os.path.join(folder, last, _INIT), os.path.join(folder, f"{last}.py")):  # noqa: PTH118
                    if file in self._sources:
                        return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file, self))
            if importlib.machinery.PathFinder.find_spec(name, [folder]) is not None:
                return None
        return self._found_by_others(name, path, target)

    def _found_by_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        """The kept source of a module that another finder finds, as those of editable installs do."""
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self and hasattr(finder, "find_spec") else None
            if spec is not None and spec.origin is not None and spec.origin in self._sources:
                spec.loader = _Loader(name, spec.origin, self)
                return spec
            if spec is not None:
                return None
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, finder: SnapshotFinder) -> None:
        super().__init__(name, path)
        self._finder = finder

    def get_code(self, fullname: str) -> CodeType | None:
        """The kept code of the module, or the same from its ``__pycache__``."""
        if self._finder.is_best_cached(self.path):
            return super().get_code(fullname)
        return self._finder.code(self.path) or super().get_code(fullname)


def _absolute(entry: str) -> str:
    """An entry of ``sys.path`` as it begins the files that Python finds there: "." and ".." stay in it."""
    if entry.startswith(os.sep):
        return entry
    return os.path.join(working_folder() or "", entry).rstrip(os.sep)  # noqa: PTH118


def _module_name(file: str) -> str:
    folder, name = os.path.split(file)
    return os.path.basename(folder) if name == _INIT else name.removesuffix(".py")  # noqa: PTH119


def _is_text(source: bytes) -> bool:
    try:
        importlib.util.decode_source(source)
    except (SyntaxError, UnicodeDecodeError):
        return False
    return True
