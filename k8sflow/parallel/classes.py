"""Classes that a forked worker inherited: a result of such a class is an object of that same class in the parent.

They are sent as their address, which is the same in the parent. Pickle finds only classes that have a name in a module,
and cloudpickle creates copies of the others.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: created by a class statement or call
_found: weakref.WeakValueDictionary[int, type] = weakref.WeakValueDictionary()
_inherited: dict[int, tuple[type, bool]] = {}  # of this process, which keeps the classes so that no address is reused


def class_reference(value: object) -> Any:
    """Reduces a class that this forked worker inherited to its address, for `Pickler.reducer_override`."""
    if not isinstance(value, type) or not _is_inherited(value):
        return NotImplemented
    return class_at, (id(value), value.__module__, value.__qualname__)


def class_at(address: int, module: str, qualname: str) -> type:
    """The class that a worker of this process sent by `class_reference`."""
    kind = _found.get(address)
    if kind is None:
        kind = next((kind for kind in _all_classes() if id(kind) == address), None)
    if kind is None or (kind.__module__, kind.__qualname__) != (module, qualname):
        raise LookupError(f"the class {module}.{qualname} was deleted while workers of parallel_map used it")
    _found[address] = kind
    return kind


def _is_inherited(kind: type) -> bool:
    if not kind.__flags__ & _HEAP_TYPE:
        return False
    if id(kind) not in _inherited:
        # A worker freezes the inherited objects, see gc.freeze; the collector lists those created since.
        _inherited[id(kind)] = kind, not any(known is kind for known in gc.get_objects())
    return _inherited[id(kind)][1]


def _all_classes() -> Iterator[type]:
    seen: set[int] = set()
    waiting: list[type] = [object]
    while waiting:
        kind = waiting.pop()
        if id(kind) not in seen:
            seen.add(id(kind))
            yield kind
            waiting += type.__subclasses__(kind)
