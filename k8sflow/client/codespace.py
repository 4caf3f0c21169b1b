"""The modules of a run's code folder in the process of a reader, under names of their own.

Two flows may each have a ``models.py``, and so may the reader. So a module that is imported for a run's artifacts is
named ``_k8sflow_read_<folder>_<hash>.models``. It replaces nothing in ``sys.modules``, and is shared by all runs of the
folder. Its own imports from the folder, including later ones inside functions, find the folder's modules too. If the
reader's own ``models`` is the same file, that module is used.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import re
import sys
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from k8sflow.errors import ArtifactError
from k8sflow.flow.spec import READ_MODULE

_INSTALLED = ("site-packages", "dist-packages")
_spaces: dict[Path, CodeSpace] = {}
_by_prefix: dict[str, CodeSpace] = {}
_lock = threading.RLock()


def space_of(folder: Path) -> CodeSpace:
    """The modules of a code folder."""
    folder = folder.resolve()
    with _lock:
        if folder not in _spaces:
            if not _by_prefix:
                sys.meta_path.insert(0, _Finder())
            _spaces[folder] = CodeSpace(folder)
            _by_prefix[_spaces[folder].prefix] = _spaces[folder]
        return _spaces[folder]


def is_installed(module: str) -> bool:
    """True if a module belongs to Python or to an installed package."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    spec = _ordinary_spec(top)
    paths = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    library = sysconfig.get_path("stdlib")
    return any(path.startswith(library) or any(name in Path(path).parts for name in _INSTALLED) for path in paths)


def shared_modules() -> list[ModuleType]:
    """The reader's own modules that are also modules of a run's folder."""
    tops = {top for space in _spaces.values() for top, is_shared in space.shared.items() if is_shared}
    return [module for name, module in list(sys.modules.items()) if name in tops]


class CodeSpace:
    """The modules of one code folder.

    Args:
        folder: The folder from which the flow's modules are imported.
    """

    def __init__(self, folder: Path) -> None:
        import cloudpickle  # noqa: PLC0415  most readers need no code space

        self.folder = folder
        digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        self.prefix = f"{READ_MODULE}{re.sub(r'[^0-9A-Za-z_]', '_', folder.name)}_{digest}"
        package = ModuleType(self.prefix, f"The modules of {folder}.")
        package.__path__ = [str(folder)]
        sys.modules[self.prefix] = package
        # Other processes don't have these names, so pickles for them include the classes.
        cloudpickle.register_pickle_by_value(package)
        importlib.invalidate_caches()
        # Python's built-in names for the folder's modules.
        self.builtins = {**vars(builtins), "__import__": self._import}
        # Top-level names; True if the reader's own module of the name is the folder's.
        self.shared: dict[str, bool] = {}
        self._importlib = ModuleType("importlib")

    def has(self, module: str) -> bool:
        """True if a module is imported from the folder, and not from another location."""
        top = module.partition(".")[0]
        spec = PathFinder.find_spec(top, [str(self.folder)])
        if spec is None or top in sys.builtin_module_names:
            return False
        if spec.origin is None:  # a folder without __init__.py: any other module of the name has precedence
            found = _ordinary_spec(top)
            return found is None or found.origin is None
        return not self._is_pythons(top, spec)

    def module(self, name: str) -> ModuleType:
        """A module of the folder.

        Raises:
            ImportError: It can't be imported.
        """
        top = name.partition(".")[0]
        if top not in self.shared:
            self.shared[top] = self._is_the_readers(top)
        return importlib.import_module(name if self.shared[top] else f"{self.prefix}.{name}")

    def program(self, file: str) -> ModuleType:
        """The file that ran as ``__main__``, as a module; instantiating the flow there runs nothing.

        Args:
            file: The file, relative to the folder.

        Raises:
            ArtifactError: It can't be imported.
        """
        path, name = self.folder / file, f"{self.prefix}.__main__"
        with _lock:
            if name in sys.modules and sys.modules[name].__file__ == str(path):
                return sys.modules[name]
            spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
            assert spec is not None
            module = importlib.util.module_from_spec(spec)
            # As with `python -m package.flow`, so that the file's relative imports work.
            module.__package__ = ".".join(Path(file).parts[:-1])
            sys.modules[name] = module
            try:
                _Loader(name, str(path)).exec_module(module)
            except (Exception, SystemExit) as error:  # user code may raise anything
                del sys.modules[name]
                raise ArtifactError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
            return module

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """``importlib.import_module`` for the folder's modules."""
        absolute = self._without_prefix(importlib.util.resolve_name(name, package))
        return self.module(absolute) if self.has(absolute) else importlib.import_module(absolute)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  the name in __import__
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__``, which the statement ``import`` calls, for the folder's modules."""
        package = str((globals or {}).get("__package__") or "")
        absolute = self._without_prefix(importlib.util.resolve_name("." * level + name, package) if level else name)
        if not self.has(absolute):
            module = builtins.__import__(name, globals, locals, fromlist or (), level)
            return self._own_importlib() if module is importlib else module
        module = self.module(absolute)
        if not fromlist:
            return self.module(absolute.partition(".")[0])
        if hasattr(module, "__path__"):
            names = getattr(module, "__all__", ()) if "*" in fromlist else fromlist
            for each in names:
                if not hasattr(module, each):
                    self._import_if_there(f"{absolute}.{each}")
        return module

    def _import_if_there(self, name: str) -> None:
        try:
            self.module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.endswith(name):
                raise

    def _own_importlib(self) -> ModuleType:
        """A copy of importlib with the folder's import_module."""
        vars(self._importlib).update({**vars(importlib), "import_module": self.import_module})
        return self._importlib

    def _without_prefix(self, name: str) -> str:
        return name.removeprefix(f"{self.prefix}.")

    def _is_the_readers(self, top: str) -> bool:
        """True if the reader's own module of a name is the same file as the folder's."""
        ours, theirs = PathFinder.find_spec(top, [str(self.folder)]), _ordinary_spec(top)
        return ours is not None and theirs is not None and _paths(ours) == _paths(theirs)

    def _is_pythons(self, top: str, ours: ModuleSpec) -> bool:
        """True if a name is a module of Python that was imported before the folder was considered."""
        if top not in sys.stdlib_module_names or top not in sys.modules:
            return False
        theirs = _ordinary_spec(top)
        return theirs is None or _paths(ours) != _paths(theirs)


class _Loader(SourceFileLoader):
    """Runs a module's code with the imports of its folder."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _by_prefix[self.name.partition(".")[0]].builtins
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the modules below the prefixes."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in _by_prefix or path is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def _ordinary_spec(top: str) -> ModuleSpec | None:
    """The spec of the module that the reader imports, or has imported, under a name."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module that was created by hand has no spec
        return None


def _paths(spec: ModuleSpec) -> set[str]:
    """The file of a module, or the folders of a package without one."""
    paths = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    return {str(Path(path).resolve()) for path in paths}
