"""The check, when an artifact is saved, that a later step will be able to load it.

pickle believes what a class says of itself: an exception whose ``__init__`` needs a keyword, or an object that looks
up its attributes in one of its own (``__getattr__``), is written without an error, and can't be read again. Such a
value is loaded once where it was made. That runs the class's own code and takes as long as a later step will, so it is
left out where nothing can go wrong: for Python's own types, those of the large numerical libraries, and classes that
leave pickling to Python. A second copy of a very large value may not fit into memory: of such a value a few objects of
each class are loaded, and their large parts are shared with the value.
"""

from __future__ import annotations

import copy
import copyreg
import io
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from k8sflow.errors import ArtifactError
from k8sflow.storage.encoding import Encoded, pickled, type_name

# A copy of a larger stream may not fit into memory. Buffers of arrays are not copied, and don't count.
_MOST_BYTES = 128 << 20
# The number of objects of each class that are loaded of a larger value.
_SAMPLES = 20
# Parts of those objects from this length on are shared with the value instead of loaded.
_LARGE_LENGTH = 1000
_CONTAINERS = frozenset({str, bytes, tuple, frozenset, list, dict, set, bytearray})
# Packages whose own classes are known to come back. Most of them hold large values, which would be loaded twice.
_TRUSTED = frozenset({
    "_decimal", "_io", "_pydatetime", "_random", "_struct", "_thread", "builtins", "array", "ast", "cloudpickle",
    "collections", "copyreg", "datetime", "decimal", "fractions", "functools", "ipaddress", "itertools", "k8sflow",
    "numbers", "operator", "pathlib", "random", "re", "types", "uuid", "zoneinfo",
    "catboost", "dask", "jax", "jaxlib", "keras", "lightgbm", "networkx", "numpy", "pandas", "polars", "pyarrow",
    "scipy", "sklearn", "spacy", "statsmodels", "tensorflow", "torch", "transformers", "xarray", "xgboost",
})  # fmt: skip
_OWN_WAYS = (
    "__reduce_ex__", "__reduce__", "__new__", "__getattribute__", "__getstate__", "__setstate__", "__getattr__",
)  # fmt: skip


def check_loadable(encoded: Encoded, value: object, name: str) -> None:
    """Returns where the value comes back from its pickle.

    Args:
        encoded: The pickled value.
        value: The value.
        name: The artifact's name, for the error.

    Raises:
        ArtifactError: It does not.
    """
    kinds = frozenset(kind for kind in encoded.kinds if not _is_safe(kind))
    if not kinds or (error := _failure(encoded, value, kinds)) is None:
        return
    doubtful = sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    classes = f"The class {doubtful[0]}" if len(doubtful) == 1 else f"One of the classes {', '.join(doubtful)}"
    raise ArtifactError(
        f"the artifact {name!r}, a {type_name(value).removeprefix('builtins.')}, can be pickled, but no later step "
        f"could load it: {type(error).__name__}: {error}",
        cause=f"{classes} can't be made again from its pickle: Python calls it with other arguments than it needs, or "
        "looks up an attribute that is not there yet.",
        advice="Give the class a __reduce__ (or __getstate__ and __setstate__), or keep what the object was made from, "
        f"such as its text; or delete it before self.next(): del self.{name}",
    ) from error


def _failure(encoded: Encoded, value: object, kinds: frozenset[type]) -> BaseException | None:
    """The exception with which the value can't be loaded."""
    if encoded.stream_size <= _MOST_BYTES:
        return _load_failure(encoded, ())
    for sample in _samples(value, kinds):
        parts: dict[int, tuple[int, object]] = {}
        found = _encoded_without_large_parts(sample, parts)
        error = None if found is None else _load_failure(found, [part for _, part in parts.values()])
        if error is not None:
            return error
    return None


def _load_failure(encoded: Encoded, parts: Sequence[object]) -> BaseException | None:
    try:
        _load(encoded, parts, is_writable=False)
    except (Exception, SystemExit) as first:  # noqa: BLE001  loading runs the code of the value's classes
        if not encoded.buffers:
            return first
    else:
        return None
    try:
        # The first attempt's arrays could not be written to, as a later step's can.
        _load(encoded, parts, is_writable=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001  as above
        return error
    return None


def _load(encoded: Encoded, parts: Sequence[object], *, is_writable: bool) -> None:
    if not parts:
        encoded.load(copy=is_writable)
        return
    buffers = [bytearray(buffer) if is_writable else buffer.toreadonly() for buffer in encoded.buffers]
    copies = [copy.copy(part) for part in parts]  # the class may change its containers when it is loaded
    kind = type("Unpickler", (pickle.Unpickler,), {"persistent_load": lambda _self, index: copies[index]})
    kind(io.BytesIO(b"".join(encoded.stream)), buffers=buffers).load()


def _samples(value: object, kinds: frozenset[type]) -> list[object]:
    """A few of the objects of each of these classes in a value."""
    for pickler in _picklers():
        counts: Counter[type] = Counter()
        found: list[object] = []
        base: Any = getattr(pickler, "reducer_override", lambda *_: NotImplemented)

        def note(self: Any, part: object) -> Any:
            kind = type(part)
            if kind in kinds and counts[kind] < _SAMPLES:  # noqa: B023  used within the iteration
                counts[kind] += 1  # noqa: B023
                found.append(part)  # noqa: B023
            return base(self, part)  # noqa: B023

        kind = type("Pickler", (pickler,), {"reducer_override": note})
        try:
            kind(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(value)
        except Exception:  # noqa: BLE001, S112  pickling runs the code of the value's classes; cloudpickle is next
            continue
        return found
    return []


def _encoded_without_large_parts(value: object, parts: dict[int, tuple[int, object]]) -> Encoded | None:
    """The pickled value; None where it can only be pickled as a part of another one.

    Args:
        value: The value.
        parts: Takes up its large parts, numbered, by their ids.
    """

    def persistent_id(_self: Any, part: Any) -> int | None:
        if type(part) not in _CONTAINERS or len(part) < _LARGE_LENGTH or part is value:
            return None
        return parts.setdefault(id(part), (len(parts), part))[0]

    for pickler in _picklers():
        parts.clear()
        table = getattr(pickler, "dispatch_table", copyreg.dispatch_table)
        try:
            return pickled(value, type("Pickler", (pickler,), {"persistent_id": persistent_id}), table)
        except Exception:  # noqa: BLE001, S112  as above
            continue
    return None


def _picklers() -> Iterator[type[Any]]:
    yield pickle.Pickler
    import cloudpickle  # noqa: PLC0415  needed for few values

    yield cloudpickle.CloudPickler


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, piece: Any) -> int:
        return len(piece)


def _is_safe(kind: type) -> bool:
    """Whether every object of a class that can be pickled can be loaded too."""
    if issubclass(kind, type):
        return True  # a class itself is looked up by its name
    package = kind.__module__.partition(".")[0]
    if issubclass(kind, BaseException):
        return package == "builtins"
    return package in _TRUSTED or _leaves_it_to_python(kind)


def _leaves_it_to_python(kind: type) -> bool:
    """Whether pickle makes objects of a class by ``object.__new__`` and fills their ``__dict__``."""
    if any("__slots__" in vars(base) for base in kind.__mro__):
        return False
    own_hash: object = kind.__hash__
    if own_hash not in (None, object.__hash__):
        return False  # in a set that the object itself is in, it is asked for its hash before it has attributes
    return all(getattr(kind, way, None) is getattr(object, way, None) for way in _OWN_WAYS)
