"""Pickles of the user's objects, with cloudpickle where pickle can't."""

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
    """A pickle of the value, with cloudpickle where pickle can't.

    Args:
        value: Any object.
        by_value: For another interpreter, which doesn't have our `__main__`: always with cloudpickle, if it is there.
    """
    if not by_value:
        try:
            return pickle.dumps(value, 5)
        except Exception:  # user-defined pickling may raise anything; it stands if there's no other way
            if optional_module("cloudpickle") is None:
                raise
    with io.BytesIO() as file:
        by_value_pickler()(file, 5).dump(value)
        return file.getvalue()


@functools.lru_cache(maxsize=1)
def by_value_pickler() -> Any:
    """The Pickler of cloudpickle, or pickle's where that isn't there.

    A function that it pickles goes on naming its file, so that a traceback shows the lines; since its 3.1.3 cloudpickle
    writes "<dynamic-code>" instead.
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
    """The Pickler with classes that a forked worker inherited sent as what they are."""
    reduce_other = getattr(base, "reducer_override", lambda _pickler, _value: NotImplemented)

    def reducer_override(pickler: Any, value: object) -> Any:
        reduced = class_reference(value)
        return reduce_other(pickler, value) if reduced is NotImplemented else reduced

    return type("InheritedPickler", (base,), {"reducer_override": reducer_override})


def dumps_inherited(value: object, *, plain: bool = False) -> bytes:
    """A forked worker's pickle for its parent.

    Args:
        value: Any object.
        plain: Without cloudpickle: other classes must have a name in a module.
    """
    with io.BytesIO() as file:
        _inherited_pickler(pickle.Pickler if plain else by_value_pickler())(file, 5).dump(value)
        return file.getvalue()


def optional_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
