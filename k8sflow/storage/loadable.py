"""The check, when an artifact is saved, that a later step will be able to load it.

pickle trusts each class: an exception whose ``__init__`` needs a keyword, or an object whose ``__getattr__`` reads one
of its own attributes, is pickled without an error, but can't be loaded. So a value is loaded once in the process that
saves it. That runs the class's own code and takes as long as in a later step, so it is skipped for types that are known
to load: Python's own, those of the large numerical libraries, and classes that leave pickling to Python. A second copy
of a very large value may not fit into memory, so only a few objects of each class are loaded then, and they share their
large parts with the value.
"""

from __future__ import annotations

import copy
import copyreg
import io
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from k8sflow.articles import with_article
from k8sflow.errors import ArtifactError
from k8sflow.storage.encoding import Encoded, pickled, type_name
from k8sflow.storage.serializers import serializer_for

# A copy of a larger stream may not fit into memory. Buffers of arrays are not copied and don't count.
_MOST_BYTES = 128 << 20
# The number of objects of each class to load from a larger value.
_SAMPLES = 20
# Parts of those objects with at least this length are shared with the value instead of loaded.
_LARGE_LENGTH = 1000
_CONTAINERS = frozenset({str, bytes, tuple, frozenset, list, dict, set, bytearray})
# Packages whose own classes are known to load. Most of their values are large, and would be loaded twice.
_TRUSTED = frozenset({
    "_decimal", "_io", "_pydatetime", "_random", "_struct", "_thread", "builtins", "array", "ast", "cloudpickle",
    "collections", "copyreg", "datetime", "decimal", "fractions", "functools", "ipaddress", "itertools", "k8sflow",
    "numbers", "operator", "pathlib", "random", "re", "types", "uuid", "zoneinfo",
    "catboost", "dask", "jax", "jaxlib", "keras", "lightgbm", "networkx", "numpy", "pandas", "polars", "pyarrow",
    "scipy", "sklearn", "spacy", "statsmodels", "tensorflow", "torch", "transformers", "xarray", "xgboost",
})  # fmt: skip
_OWN_WAYS = (
    "__reduce_ex__",
    "__reduce__",
    "__new__",
    "__getattribute__",
    "__getstate__",
    "__setstate__",
    "__getattr__",
)


def check_loadable(encoded: Encoded, value: object, name: str) -> None:
    """Returns if the value can be loaded from its pickle.

    Args:
        encoded: The pickled value.
        value: The value.
        name: The artifact's name, for errors.

    Raises:
        ArtifactError: It can't be loaded.
    """
    kinds = frozenset(kind for kind in encoded.kinds if not _is_safe(kind))
    if not kinds or (error := _failure(encoded, value, kinds)) is None:
        return
    what = f"the artifact {name!r}, {with_article(type_name(value).removeprefix('builtins.'))},"
    if isinstance(error, ArtifactError):
        raise ArtifactError(f"{what} can't be stored: {error.summary}", cause=error.cause, advice=error.advice)
    doubtful = sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    classes = f"The class {doubtful[0]}" if len(doubtful) == 1 else f"One of the classes {', '.join(doubtful)}"
    raise ArtifactError(
        f"{what} can be pickled, but no later step could load it: {type(error).__name__}: {error}",
        cause=f"{classes} can't be rebuilt from its pickle: Python calls it with the wrong arguments, or it reads an "
        "attribute that is not set yet.",
        advice="Give the class a __reduce__ (or __getstate__ and __setstate__), or store the data from which the "
        f"object is built, such as its text; or delete it before self.next(): del self.{name}",
    ) from error


def _failure(encoded: Encoded, value: object, kinds: frozenset[type]) -> BaseException | None:
    """The exception raised when the value is loaded, or None."""
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
        # The arrays of the first attempt were read-only; those of a later step are writable.
        _load(encoded, parts, is_writable=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001  as above
        return error
    return None


def _load(encoded: Encoded, parts: Sequence[object], *, is_writable: bool) -> None:
    if not parts:
        encoded.load(copy=is_writable)
        return
    buffers = [bytearray(buffer) if is_writable else buffer.toreadonly() for buffer in encoded.buffers]
    copies = [copy.copy(part) for part in parts]  # loading may run code of the class that changes them
    kind = type("Unpickler", (pickle.Unpickler,), {"persistent_load": lambda _self, index: copies[index]})
    kind(io.BytesIO(b"".join(encoded.stream)), buffers=buffers).load()


def _samples(value: object, kinds: frozenset[type]) -> list[object]:
    """A few of a value's objects of each class."""
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
    """The pickled value; None if it can only be pickled as a part of another one.

    Args:
        value: The value.
        parts: Filled with its large parts and their numbers, by id.
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
    """A file that discards everything."""

    def write(self, piece: Any) -> int:
        return len(piece)


def _is_safe(kind: type) -> bool:
    """True if every object of a class that can be pickled can be loaded too."""
    if issubclass(kind, type):
        return True  # the value is the class itself, which is looked up by name
    if serializer_for(kind) is not None:
        return False
    package = kind.__module__.partition(".")[0]
    if issubclass(kind, BaseException):
        return package == "builtins"
    return package in _TRUSTED or _leaves_it_to_python(kind)


def _leaves_it_to_python(kind: type) -> bool:
    """True if pickle creates objects of a class by ``object.__new__`` and fills their ``__dict__``."""
    if any("__slots__" in vars(base) for base in kind.__mro__):
        return False
    own_hash: object = kind.__hash__
    if own_hash not in (None, object.__hash__):
        return False  # an object in a set that it refers to is hashed before it has attributes
    return all(getattr(kind, way, None) is getattr(object, way, None) for way in _OWN_WAYS)
