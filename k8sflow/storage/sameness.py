"""The check that a value is still the one that was loaded, although its pickle has different bytes.

A pickle depends on which parts of a value are the same object, and on the iteration order of sets. Loading changes
both, so a value that a step may only have read is compared with a freshly loaded one. The comparison ignores what
reading alone changes: the arrangement of a data frame's columns in memory and, when branches are merged, cached
properties.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

from k8sflow.storage.encoding import Encoded, pickled

# The attribute in which pandas caches results for an index or a group.
_PANDAS_CACHE = "_cache"
# The depth to which cached values may contain objects with cached values.
_DEPTH = 20


def is_unchanged(found: Encoded, value: object, fresh: object) -> bool:
    """True if a value has exactly the content of a freshly loaded one.

    Args:
        found: The value, pickled.
        value: The value.
        fresh: The value that an earlier task saved, loaded again.
    """
    if type(value) is not type(fresh):
        return False
    once_more = _pickled(fresh, pickle.Pickler)
    if once_more is None:
        return False
    if found.size == once_more.size and found.blob == once_more.blob:
        return True
    if _loaded_again(value) == _loaded_again(fresh) is not None:
        return True
    if not any(map(_is_of_pandas, found.kinds)) or sum(map(len, found.buffers)) < sum(map(len, once_more.buffers)):
        return False
    one, other = _pickled(value, _Arranging), _pickled(fresh, _Arranging)
    return one is not None and other is not None and one.blob == other.blob


def differs_by_caches(value: object, fresh: object) -> bool:
    """True if a value differs from another one only by cached properties, with the values that the other one computes.

    Args:
        value: The value.
        fresh: The value before it was read, if they are the same; its cached properties get computed.
    """
    return _differs_by_caches(value, fresh, set(), _DEPTH)


def _differs_by_caches(value: object, fresh: object, seen: set[tuple[int, int]], depth: int) -> bool:
    if depth == 0 or type(value) is not type(fresh):
        return False
    owners: tuple[list[object], list[object]] = ([], [])
    one, other = (_pickled(each, _stripping(found)) for each, found in zip((value, fresh), owners, strict=True))
    if one is None or other is None or one.blob != other.blob:
        return False
    for read, owner in zip(*owners, strict=True):
        if (id(read), id(owner)) in seen:
            continue
        seen.add((id(read), id(owner)))
        for name in _caches(type(read)) & vars(read).keys():
            try:
                computed = getattr(owner, name)
            except Exception:  # noqa: BLE001  the property is user code
                return False
            if not _differs_by_caches(vars(read)[name], computed, seen, depth - 1):
                return False
    return True


def _pickled(value: object, pickler: type[pickle.Pickler]) -> Encoded | None:
    """The pickled value, or None if plain pickle can't pickle it."""
    try:
        return pickled(value, pickler, copyreg.dispatch_table)
    except Exception:  # noqa: BLE001  pickling runs the code of the value's classes, which may raise anything
        return None


def _loaded_again(value: object) -> str | None:
    """The hash of a value's pickle after one more load, or None if plain pickle can't pickle it.

    Loading interns the names of attributes. So the first load in a process makes equal strings of a pickle one object,
    while later loads make several; after one more load, both values have several.
    """
    found = _pickled(value, pickle.Pickler)
    try:
        loaded = None if found is None else _pickled(found.load(copy=True), pickle.Pickler)
    except Exception:  # noqa: BLE001  loading runs the code of the value's classes, which may raise anything
        return None
    return None if loaded is None else loaded.blob


def _is_of_pandas(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "pandas" for base in kind.__mro__)


class _Arranging(pickle.Pickler):
    """Pickles data frames in a form that reading them doesn't change.

    Columns of the same type are side by side, as pandas arranges them on some reads, and its caches are empty.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) or not _is_of_pandas(type(value)):
            return NotImplemented
        is_frame = any(base.__name__ == "NDFrame" for base in type(value).__mro__)
        reduced = (value.copy() if is_frame else value).__reduce_ex__(5)
        if not isinstance(reduced, tuple) or len(reduced) < 3:  # noqa: PLR2004  it has no state
            return reduced
        make, arguments, state, *rest = reduced
        parts = state if isinstance(state, tuple) else (state,)
        emptied = tuple(_without(part, {_PANDAS_CACHE}) for part in parts)
        return (make, arguments, emptied if isinstance(state, tuple) else emptied[0], *rest)


def _without(state: Any, names: Collection[str]) -> Any:
    """A part of an object's state without some attributes."""
    return {key: kept for key, kept in state.items() if key not in names} if isinstance(state, dict) else state


def _stripping(owners: list[object]) -> type[pickle.Pickler]:
    """A pickler that omits the values of cached properties, and collects the objects that have such properties."""

    class Stripping(_Arranging):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, type) or not (caches := _caches(type(value))) or "__dict__" not in dir(type(value)):
                return super().reducer_override(value)
            owners.append(value)
            make, arguments, state, *rest = (*value.__reduce_ex__(5), None)[:6]
            if not isinstance(state, dict):
                return NotImplemented
            # pickle writes no state at all for an object without other attributes.
            return (make, arguments, _without(state, caches) or None, *rest)

    return Stripping


def _caches(kind: type) -> frozenset[str]:
    """The names under which a class caches computed values in the ``__dict__`` of its objects (cached_property)."""
    members = {name: member for base in reversed(kind.__mro__) for name, member in vars(base).items()}
    return frozenset(name for name, member in members.items() if _is_cache(member))


def _is_cache(member: Any) -> bool:
    get: Callable[..., Any] | None = getattr(type(member), "__get__", None)
    is_method = isinstance(member, (FunctionType, classmethod, staticmethod)) or callable(member)
    return get is not None and not is_method and not hasattr(type(member), "__set__")
