"""Whether a value is still the one that was loaded, although its pickle has other bytes.

A pickle says which parts of a value are one object, and in which order a set gives its members. Loading changes both,
so what a step was given and only read is compared with what has just been loaded once more. What reading alone changes
is left out of the comparison: how a data frame arranges its columns in memory, and, where branches are merged, what
cached properties hold.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

from k8sflow.storage.encoding import Encoded, pickled

# Where pandas keeps what it has computed of an index or a group.
_PANDAS_CACHE = "_cache"
# How deep cached values may hold objects that have cached values themselves.
_DEPTH = 20


def is_unchanged(found: Encoded, value: object, fresh: object) -> bool:
    """Whether a value has exactly the content of another one that was loaded just now.

    Args:
        found: The value, pickled.
        value: The value.
        fresh: What an earlier task saved, loaded once more.
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
    """Whether a value has the content of another one, but for cached properties that hold what the other one computes.

    Args:
        value: The value.
        fresh: What it may have been before it was read; its cached properties are computed.
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
            except Exception:  # noqa: BLE001  the property is the user's code
                return False
            if not _differs_by_caches(vars(read)[name], computed, seen, depth - 1):
                return False
    return True


def _pickled(value: object, pickler: type[pickle.Pickler]) -> Encoded | None:
    """The pickled value, or None where plain pickle can't do it."""
    try:
        return pickled(value, pickler, copyreg.dispatch_table)
    except Exception:  # noqa: BLE001  pickling runs the code of the value's classes, which may raise anything
        return None


def _loaded_again(value: object) -> str | None:
    """The hash of a value's pickle after one more load, or None where plain pickle can't do it.

    Loading interns the names of attributes. The first load in a process so makes equal texts of a pickle one object
    that later loads leave apart; after one more load both are apart.
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
    """Pickles data frames as they are before anything is read of them.

    Their columns of one type are side by side, as pandas arranges them at the latest then, and its caches are empty.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) or not _is_of_pandas(type(value)):
            return NotImplemented
        is_frame = any(base.__name__ == "NDFrame" for base in type(value).__mro__)
        reduced = (value.copy() if is_frame else value).__reduce_ex__(5)
        if not isinstance(reduced, tuple) or len(reduced) < 3:  # noqa: PLR2004  without a state
            return reduced
        make, arguments, state, *rest = reduced
        parts = state if isinstance(state, tuple) else (state,)
        emptied = tuple(_without(part, {_PANDAS_CACHE}) for part in parts)
        return (make, arguments, emptied if isinstance(state, tuple) else emptied[0], *rest)


def _without(state: Any, names: Collection[str]) -> Any:
    """A part of an object's state without some of its attributes."""
    return {key: kept for key, kept in state.items() if key not in names} if isinstance(state, dict) else state


def _stripping(owners: list[object]) -> type[pickle.Pickler]:
    """A pickler that leaves out what cached properties hold, and keeps the objects that have such properties."""

    class Stripping(_Arranging):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, type) or not (caches := _caches(type(value))) or "__dict__" not in dir(type(value)):
                return super().reducer_override(value)
            owners.append(value)
            make, arguments, state, *rest = (*value.__reduce_ex__(5), None)[:6]
            if not isinstance(state, dict):
                return NotImplemented
            # Of an object without other attributes pickle writes no state at all.
            return (make, arguments, _without(state, caches) or None, *rest)

    return Stripping


def _caches(kind: type) -> frozenset[str]:
    """The names under which a class keeps in its objects' ``__dict__`` what it has computed (cached_property)."""
    members = {name: member for base in reversed(kind.__mro__) for name, member in vars(base).items()}
    return frozenset(name for name, member in members.items() if _is_cache(member))


def _is_cache(member: Any) -> bool:
    get: Callable[..., Any] | None = getattr(type(member), "__get__", None)
    is_method = isinstance(member, (FunctionType, classmethod, staticmethod)) or callable(member)
    return get is not None and not is_method and not hasattr(type(member), "__set__")
