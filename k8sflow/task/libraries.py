"""The versions of the installed packages on which code depends."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

_OURS = "k8sflow"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def versions(modules: Iterable[str], loaded: Mapping[str, ModuleType]) -> dict[str, str]:
    """The versions of the packages that have some modules, and of all packages that these require, by name.

    For a module of no package, the state of its file stands for the version.

    Args:
        modules: The first names of modules; those of Python itself and of k8sflow are left out.
        loaded: The modules that are loaded, by name.
    """
    # Cython makes modules without a file for the types that compiled packages share; these packages count.
    names = (name for name in modules if not name.startswith("_cython_"))
    owners = _owners(frozenset(name for name in names if name not in {_OURS, *sys.stdlib_module_names}))
    found = {f"module {name}": _state(name, loaded.get(name)) for name, packages in owners.items() if not packages}
    waiting = [package for packages in owners.values() for package in packages]
    while waiting:
        name = _normal(waiting.pop())
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed
        found[name] = package.version
        waiting += [match[0] for text in package.requires or () if (match := _NAME.match(text))]
    return found


@cache
def installed() -> tuple[str, ...]:
    """The names and versions of all installed packages."""
    folders = dict.fromkeys(Path(folder) for folder in sys.path if folder)
    return tuple(sorted({info.name for folder in folders for info in folder.glob("*.dist-info")}))


@cache
def _owners(modules: frozenset[str]) -> dict[str, set[str]]:
    """The installed packages that have each module; ``importlib.metadata`` would parse the lists of all their files."""
    found: dict[str, set[str]] = {name: set() for name in modules}
    folders = dict.fromkeys(Path(folder) for folder in sys.path if folder and modules)
    for info in (info for folder in folders for info in sorted(folder.glob("*.dist-info"))):
        try:
            files = b"\n" + (info / "RECORD").read_bytes()
        except OSError:
            continue
        package = info.name.removesuffix(".dist-info").rpartition("-")[0]
        for name in modules:
            if f"\n{name}/".encode() in files or f"\n{name}.".encode() in files:
                found[name].add(package)
    return found


def _state(name: str, module: ModuleType | None) -> str:
    spec = None if module is not None else PathFinder.find_spec(name)
    file = getattr(module, "__file__", None) or (spec and spec.origin)
    try:
        status = Path(file or "").stat()
    except OSError:
        return ""
    return f"{file} {status.st_size} {status.st_mtime_ns}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
