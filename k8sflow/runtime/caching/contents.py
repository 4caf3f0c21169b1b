"""The contents of objects: all of their state, or an error that says that it can't be seen.

A digest of contents must differ wherever the object could behave in another way, so nothing is left out here because it
is hard to get at.
"""

from __future__ import annotations

import copyreg
import logging
import sys
import types
import warnings
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock, RLock
from typing import Any

from k8sflow.runtime.caching.flow_class import own

_POINTER = tuple.__itemsize__
_PROTOCOL = 4


class HiddenStateError(Exception):
    """An object has state that can't be seen."""


@dataclass(frozen=True)
class Contents:
    """The values that an object consists of.

    Args:
        values: The values in their order.
        is_ordered: False if their order says nothing.
    """

    values: list[Any]
    is_ordered: bool = True


def _pairs(items: Any) -> list[Any]:
    return [each for pair in items for each in pair]


# What Python's own types hold, whatever the subclass at hand says of it.
_OF_BASES: dict[type, Callable[[Any], list[Any]]] = {
    OrderedDict: lambda value: _pairs(OrderedDict.items(value)),
    defaultdict: lambda value: [value.default_factory, *_pairs(dict.items(value))],
    dict: lambda value: _pairs(dict.items(value)),
    types.MappingProxyType: lambda value: _pairs(value.items()),
    list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: [*tuple.__iter__(value)],
    set: lambda value: [*set.__iter__(value)],
    frozenset: lambda value: [*frozenset.__iter__(value)],
    deque: lambda value: [value.maxlen, *deque.__iter__(value)],
    str: lambda value: [str.__str__(value)],
    bytes: lambda value: [bytes(memoryview(value))],
    bytearray: lambda value: [bytes(memoryview(value))],
    int: lambda value: [int.__repr__(value)],
    float: lambda value: [float.__repr__(value)],
    complex: lambda value: [complex.__repr__(value)],
    property: lambda value: [value.fget, value.fset, value.fdel],
    staticmethod: lambda value: [value.__func__],
    classmethod: lambda value: [value.__func__],
    types.MethodType: lambda value: [value.__func__, value.__self__],
    BaseException: lambda value: [value.args, value.__cause__],
    logging.Logger: lambda value: [value.name],
}
_WITHOUT_STATE = (type(Lock()), type(RLock()))
_COPYING = ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
_OF_LOGGERS = frozenset(vars(logging.getLogger("")))


def is_without_state(value: object) -> bool:
    """True for what no result depends on: locks, and the output of this process."""
    streams = (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return type(value) in _WITHOUT_STATE or any(value is each for each in streams)


def of_known(value: Any) -> Contents | None:
    """The contents of an object of exactly one of Python's own types; None for another type."""
    kind = type(value)
    if kind in _OF_BASES:
        return Contents(_OF_BASES[kind](value), kind not in {set, frozenset})
    if kind is logging.RootLogger:
        return Contents([])
    if kind is weakref.ReferenceType:
        return Contents([value(), value.__callback__])
    if kind is types.CellType:
        return Contents([content(value)])
    return None


def is_changeable(value: object) -> bool:
    """True if a change of an object is seen wherever the same object is, since it is compared by its identity."""
    return type(value).__hash__ in {None, object.__hash__}


def has_results(value: Any) -> bool:
    """True if a function under ``functools.cache`` already holds results of earlier calls, which can't be seen."""
    info = own(value, "cache_info")
    return info is not None and info().currsize > 0


def content(cell: types.CellType) -> Any:
    """The value in a cell; None if it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def of_typing(value: Any) -> Contents | None:
    """The contents of a type as annotations have it; None for another object."""
    if not isinstance(value, (types.GenericAlias, types.UnionType)) and type(value).__module__ != "typing":
        return None
    names = ("__origin__", "__args__", "__metadata__", "__supertype__", "__bound__", "__constraints__")
    found = [each for name in names if (each := getattr(value, name, None)) is not None]
    return Contents(found or [repr(value)])


def of_own(value: Any, is_own: Callable[[type], bool]) -> list[Contents]:
    """The contents of an object by its attributes, and by those of its bases that are not written in Python.

    Args:
        value: The object.
        is_own: True for a class of the user's, which may have changed how its objects are copied.

    Raises:
        HiddenStateError: A base that is not written in Python has state that can't be seen.
    """
    kind = type(value)
    base = next((each for each in kind.__mro__ if each in _OF_BASES), object)
    names = _OF_LOGGERS if base is logging.Logger else frozenset()
    found = [Contents(_pairs((name, each) for name, each in _attributes(value) if name not in names))]
    if base is not object:
        found.append(Contents(_OF_BASES[base](value), base not in {set, frozenset}))
    if _has_more(kind, base):
        found.append(_of_library_base(value, is_own))
    return found


def reduced(value: Any) -> Contents:
    """The contents of an object as its own class gives them to be copied or pickled.

    Raises:
        HiddenStateError: It can't be.
    """
    return _split(value, copyreg.dispatch_table.get(type(value)) or (lambda each: each.__reduce_ex__(_PROTOCOL)))


def _split(value: Any, reducer: Callable[[Any], Any]) -> Contents:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reducer(value)
            if isinstance(found, str):
                return Contents([found])
            function, arguments, *rest = found
            state, items, pairs, setter = (*rest, None, None, None, None)[:4]
            return Contents([function, arguments, state, list(items or ()), _pairs(pairs or ()), setter])
    except Exception as error:  # the code of a library, or of the user
        raise HiddenStateError(f"{type(error).__name__}: {error}") from error


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes that an object has in slots, by whatever name, and in its dictionary."""
    for base in type(value).__mro__:
        for name, member in vars(base).items() if "__slots__" in vars(base) else ():
            if type(member) is types.MemberDescriptorType:
                try:
                    yield f"{base.__qualname__}.{name}", member.__get__(value)
                except AttributeError:
                    continue  # not set
    try:
        yield from dict(object.__getattribute__(value, "__dict__")).items()
    except AttributeError:
        return


def _has_more(kind: type, base: type) -> bool:
    """True if objects have more memory than their attributes and the base need, as ``object.__getstate__`` finds it."""
    slots = sum(
        type(member) is types.MemberDescriptorType
        for each in kind.__mro__
        if "__slots__" in vars(each)
        for member in vars(each).values()
    )
    for offset, of_base in (
        (kind.__dictoffset__, base.__dictoffset__),
        (kind.__weakrefoffset__, base.__weakrefoffset__),
    ):
        slots += offset != 0 and not of_base and (offset > 0 or base.__itemsize__ > 0)
    return kind.__basicsize__ > base.__basicsize__ + _POINTER * slots or bool(kind.__itemsize__ and base is object)


def _of_library_base(value: Any, is_own: Callable[[type], bool]) -> Contents:
    """The contents as the base of a library gives them."""
    for each in type(value).__mro__:
        for name in _COPYING:
            if is_own(each) and name in vars(each):
                raise HiddenStateError(f"{each.__qualname__} has a method {name}")
    return reduced(value)
