"""By what code reaches more than its names say: libraries, the environment, ``current``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.flow.current import Current
from k8sflow.runtime.caching.bytecode import DYNAMIC

# Modules whose functions reach code that no name of the user's leads to, such as the classes in a pickle.
_REACHING = frozenset({
    "_pickle", "cloudpickle", "code", "codeop", "ctypes", "dill", "importlib", "joblib", "marshal", "pickle", "pkgutil",
    "runpy", "shelve", "subprocess",
})  # fmt: skip
# The functions of other modules that load a pickle.
_LOADING = frozenset({("torch", "load")})
_BY_NAME = frozenset({"environ", "environb", "getenv", "getenvb"})


@dataclass
class Reach:
    """The libraries and the surroundings that code reaches.

    Args:
        libraries: The first names of the modules of libraries.
        modules: Their whole names.
        imported_later: The modules that code imports as it runs, and that are not loaded now.
        unclear: By what code reaches more than can be seen: all code of the folder counts then.
        of_current: The attributes of ``current`` that code loads; ``*`` for all of them.
        passes_current: True if ``current`` itself is passed on.
        has_flow: True if it has a class of the flow, by which it may read parameters and constants.
        reads_environment: True if it may read environment variables whose names are not written in it.
    """

    libraries: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    imported_later: set[str] = field(default_factory=set)
    unclear: dict[str, None] = field(default_factory=dict)
    of_current: set[str] = field(default_factory=set)
    passes_current: bool = False
    has_flow: bool = False
    reads_environment: bool = False

    def library(self, module: str | None) -> None:
        """Notes that something of a library is used."""
        if module:
            first = module.partition(".")[0]
            self.libraries.add(first)
            self.modules.add(module)
            if first in _REACHING:
                self.unclear[f"its code uses {first}"] = None

    def function(self, value: Any, where: str) -> None:
        """Notes what a library has to reach anything, by whatever name the user has it."""
        if value.__name__ in DYNAMIC:
            self.unclear[f"{where} is {value.__name__}"] = None
        if value in {os.getenv, vars(os).get("getenvb")} and where.rpartition(".")[2] not in _BY_NAME:
            self.reads_environment = True

    def names_of(self, module: str, names: set[str]) -> None:
        """Notes what code takes from a module of a library."""
        for of, name in _LOADING:
            if of == module.partition(".")[0] and name in names:
                self.unclear[f"its code uses {of}.{name}"] = None

    def current(self, attributes: Sequence[str]) -> None:
        """Notes that code has ``current``, and which of its attributes follow."""
        self.of_current.add(attributes[0] if attributes else "*")
        self.passes_current |= not attributes

    def is_surrounding(self, value: object) -> bool:
        """True for ``current`` and for the environment, which it notes."""
        if isinstance(value, Current):
            self.current(())
        elif is_environment(value):
            self.reads_environment = True
        else:
            return False
        return True

    def is_plain_environment(self, name: str, value: object) -> bool:
        """True for the environment under its own name: the code says which variables it reads."""
        return is_environment(value) and name in _BY_NAME


def is_environment(value: object) -> bool:
    """True for the environment variables of the process."""
    return value is os.environ or value is vars(os).get("environb")
