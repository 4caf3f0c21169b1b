"""Pickles of the user's objects, with cloudpickle where pickle can't."""

from __future__ import annotations

import importlib
import pickle
from typing import Any


def dumps(value: object, *, by_value: bool = False) -> bytes:
    """A pickle of the value, with cloudpickle where pickle can't.

    Args:
        value: Any object.
        by_value: For another interpreter, which doesn't have our `__main__`: always with cloudpickle, if it is there.
    """
    cloudpickle = optional_module("cloudpickle") if by_value else None
    if cloudpickle is None:
        try:
            return pickle.dumps(value, 5)
        except Exception:  # user-defined pickling may raise anything; it stands if there's no other way
            cloudpickle = optional_module("cloudpickle")
            if cloudpickle is None:
                raise
    return bytes(cloudpickle.dumps(value, 5))


def optional_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
