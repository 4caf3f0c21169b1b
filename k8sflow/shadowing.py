"""Keeps a user's file that is named like a module of the standard library out of k8sflow's own imports.

A file such as ``random.py`` beside a flow hides Python's ``random`` from everything that is imported later, and many
modules of k8sflow are imported late. Where there is such a file, k8sflow imports all of its modules at once, with the
standard library in front of the user's folders. After that the user's code finds the user's file, as in plain Python.

This runs before anything else of k8sflow, so it imports only what every interpreter has loaded at its start.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120  pathlib may be one of the hidden modules
_DYNAMIC_LIBRARIES = os.path.join(_STANDARD_LIBRARY, "lib-dynload")  # noqa: PTH118  as above
# Packages that no flow needs and that import what isn't installed everywhere.
_SKIPPED = ("k8sflow.controller", "k8sflow.testing")


class StandardLibraryFirst:
    """While this is entered, imports find the standard library's modules and not the user's files of the same name.

    Args:
        folders: Folders of the user's that are about to be put on ``sys.path``.
    """

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self.names = {name for folder in (*_folders_before_the_library(), *folders) for name in _hidden_by(folder)}
        self._known: dict[str, ModuleType] = {}

    def enter(self) -> None:
        """Puts the standard library first."""
        if self.names:
            self._known = {name: module for name, module in sys.modules.items() if self._is_hidden(name)}
            for name, module in self._known.items():
                if not _is_standard(module):
                    del sys.modules[name]
            sys.meta_path.insert(0, self)

    def leave(self) -> None:
        """Imports all of k8sflow, and gives the names back to the user's files."""
        if self.names:
            _import_everything()
            sys.meta_path.remove(self)
            for name in [name for name in sys.modules if self._is_hidden(name)]:
                del sys.modules[name]
            sys.modules.update(self._known)

    def find_spec(self, name: str, path: Sequence[str] | None = None, _target: object = None) -> Any:
        """Finds a hidden module, as the import system asks for it (importlib.abc.MetaPathFinder)."""
        if path is not None or name not in self.names:
            return None
        finder = sys.modules["_frozen_importlib_external"].PathFinder
        return finder.find_spec(name, [_STANDARD_LIBRARY, _DYNAMIC_LIBRARIES])

    def _is_hidden(self, name: str) -> bool:
        return name.partition(".")[0] in self.names


def protect(*folders: str) -> None:
    """Imports all of k8sflow, where files of the user's would hide the standard library from its later imports.

    Args:
        folders: Folders of the user's that are about to be put on ``sys.path``.
    """
    library = StandardLibraryFirst(folders)
    library.enter()
    library.leave()


def _folders_before_the_library() -> list[str]:
    folders = [entry for entry in sys.path if isinstance(entry, str)]
    return folders[: folders.index(_STANDARD_LIBRARY)] if _STANDARD_LIBRARY in folders else folders


def _hidden_by(folder: str) -> list[str]:
    """The modules of the standard library that a folder has files or packages of the same name for."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            found = [entry.name for entry in entries if _module_of(entry.name) in sys.stdlib_module_names]
    except OSError:  # an archive, or a folder that doesn't exist
        return []
    is_package = os.path.isfile
    return [
        _module_of(name)
        for name in found
        if name.endswith((".py", ".so")) or is_package(os.path.join(folder, name, "__init__.py"))  # noqa: PTH118
    ]


def _module_of(name: str) -> str:
    return name.partition(".")[0]


def _is_standard(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or os.path.dirname(file).startswith(_STANDARD_LIBRARY)  # noqa: PTH120


def _import_everything() -> None:
    import importlib  # noqa: PLC0415  only now can't it be a file of the user's
    import pkgutil  # noqa: PLC0415

    for found in pkgutil.walk_packages(sys.modules["k8sflow"].__path__, "k8sflow."):
        if not found.name.startswith(_SKIPPED) and not found.name.endswith("__main__"):
            try:
                importlib.import_module(found.name)
            except ImportError:  # a library that isn't installed here
                continue


# Left at the end of k8sflow/__init__.py.
AT_IMPORT = StandardLibraryFirst()
AT_IMPORT.enter()
