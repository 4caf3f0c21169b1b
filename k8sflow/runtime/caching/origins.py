"""Names of functions, classes and modules, and the libraries from which they are."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Mapping
from typing import Any

from k8sflow.executors.fork_server.preload_plan import OURS, is_library

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def without_addresses(text: str) -> str:
    """A text in which no object has the address that it has in this process only."""
    return _ADDRESS.sub("", text)


def is_named(value: Any) -> bool:
    """True if a function or a class is found by its name in a library, whose version says all about it."""
    found: Any = sys.modules.get(str(value.__module__))
    if found is None or not is_library(found):
        return False
    for name in str(value.__qualname__).split("."):
        found = None if found is None else vars(found).get(name) if hasattr(found, "__dict__") else None
    return found is value


def name_in_library(value: object) -> str | None:
    """The name of an object that a library itself has in its module; None if it is the user's."""
    name = type(value).__module__
    for module in (sys.modules.get(each) for each in (name.partition(".")[0], name)):
        if module is not None and is_library(module):
            for key, each in list(vars(module).items()):
                if each is value:
                    return f"{module.__name__}.{key}"
    return None


def annotations_of(function: types.FunctionType, unclear: dict[str, None]) -> dict[str, Any]:
    """The annotations of a function; if they can't be read, ``unclear`` gets a sentence that says so."""
    try:
        return dict(function.__annotations__)
    except Exception:  # noqa: BLE001  since Python 3.14 it runs code, with names that may not exist
        unclear[f"{function.__qualname__} has annotations that can't be read"] = None
        return {}


def name_of(annotation: object) -> str:
    """The name of a type, the same in each process."""
    return annotation.__qualname__ if isinstance(annotation, type) else without_addresses(str(annotation))


def absolute(name: str, level: int, names: Mapping[str, Any]) -> str:
    """The name of a module of which an import statement has only a part."""
    if not level:
        return name
    package = str(names.get("__package__") or names.get("__name__", ""))
    base = package.rsplit(".", level - 1)[0] if level > 1 else package
    return f"{base}.{name}" if name else base


def is_installed(name: str, *, or_missing: bool = False) -> bool:
    """True if a module that is not loaded is in an installed package, or comes with Python.

    Args:
        name: Its first name.
        or_missing: The result for a module that this process doesn't find at all.
    """
    if name in {OURS, *sys.stdlib_module_names}:
        return True
    from importlib.machinery import PathFinder  # noqa: PLC0415  few steps import as they run

    from k8sflow.executors.fork_server.preload_plan import is_library_file  # noqa: PLC0415

    spec = PathFinder.find_spec(name)
    if spec is None:
        return or_missing
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return bool(places) and all(is_library_file(each) for each in places)
