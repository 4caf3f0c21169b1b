"""The members of a flow's class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

_KNOWN = (FunctionType, property, staticmethod, classmethod, functools.cached_property, functools.partialmethod)


def is_implicit(name: str, value: object) -> bool:
    """True if Python may call a member without anyone naming it."""
    return name.startswith("__") and name.endswith("__") and isinstance(value, FunctionType)


def has_own_access(value: object) -> bool:
    """True if reading a member runs code of its class, which gets ``self`` and may read any artifact."""
    return hasattr(type(value), "__get__") and type(value) not in _KNOWN


def own(value: Any, name: str) -> Any:
    """An attribute that an object really has; None for one that its ``__getattr__`` makes, as a config's does."""
    return getattr(value, name, None) if inspect.getattr_static(value, name, None) is not None else None


def methods_in(member: Any) -> Iterator[FunctionType]:
    """The functions in a member of a class, and those that decorators have wrapped."""
    inner = [own(member, name) for name in ("fget", "fset", "fdel", "func", "__func__", "__wrapped__")]
    if isinstance(member, FunctionType):
        yield member
    for each in inner:
        if each is not None and each is not member:
            yield from methods_in(each)
