"""Pickles of the user's objects, by cloudpickle if pickle fails."""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import types
from collections import ChainMap
from typing import Any

from .classes import class_reference


def dumps(value: object, *, by_value: bool = False) -> bytes:
    """A pickle of the value, by cloudpickle if pickle fails.

    Args:
        value: Any object.
        by_value: Always use cloudpickle, if installed: for another interpreter, which doesn't have our `__main__`.
    """
    if not by_value:
        try:
            return pickle.dumps(value, 5)
        except Exception:  # user-defined pickling may raise anything
            if optional_module("cloudpickle") is None:
                raise
    with io.BytesIO() as file:
        by_value_pickler()(file, 5).dump(value)
        return file.getvalue()


@functools.lru_cache(maxsize=1)
def by_value_pickler() -> Any:
    """The Pickler of cloudpickle, or pickle's if that isn't installed.

    Functions keep the name of their file, so that tracebacks show the source lines; cloudpickle 3.1.3 and later write
    "<dynamic-code>" instead.
    """
    cloudpickle = optional_module("cloudpickle")
    if cloudpickle is None:
        return pickle.Pickler
    table = cloudpickle.Pickler.dispatch_table

    def reduce_code(code: types.CodeType) -> Any:
        make, parts = table[types.CodeType](code)
        return make, tuple(code.co_filename if part == "<dynamic-code>" else part for part in parts)

    own_table = ChainMap({types.CodeType: reduce_code}, table)
    return type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": own_table})


@functools.lru_cache(maxsize=2)
def _inherited_pickler(base: Any) -> Any:
    """A Pickler that sends classes that a forked worker inherited by reference."""
    reduce_other = getattr(base, "reducer_override", lambda _pickler, _value: NotImplemented)

    def reducer_override(pickler: Any, value: object) -> Any:
        reduced = class_reference(value)
        return reduce_other(pickler, value) if reduced is NotImplemented else reduced

    return type("InheritedPickler", (base,), {"reducer_override": reducer_override})


def dumps_inherited(value: object, *, plain: bool = False) -> bytes:
    """A forked worker's pickle for its parent.

    Args:
        value: Any object.
        plain: Don't use cloudpickle: other classes must have a name in a module.
    """
    with io.BytesIO() as file:
        _inherited_pickler(pickle.Pickler if plain else by_value_pickler())(file, 5).dump(value)
        return file.getvalue()


def optional_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
