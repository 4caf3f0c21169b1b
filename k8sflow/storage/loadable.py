"""The check, when an artifact is saved, that a later step will be able to load it.

pickle believes what a class says of itself: an exception whose ``__init__`` needs a keyword, or an object that looks
up its attributes in one of its own (``__getattr__``), is written without an error, and can't be read again. Such a
value is loaded once where it was made. That runs the class's own code and takes as long as a later step will, so it is
left out where nothing can go wrong: for Python's own types, those of the large numerical libraries, and classes that
leave pickling to Python.
"""

from __future__ import annotations

from k8sflow.errors import ArtifactError
from k8sflow.storage.encoding import Encoded, type_name

# Of a larger stream a copy may not fit into memory. Buffers of arrays are not copied, and don't count.
_MOST_BYTES = 128 << 20
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
    doubtful = sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in encoded.kinds if not _is_safe(kind))
    if not doubtful or encoded.stream_size > _MOST_BYTES or (error := _failure(encoded)) is None:
        return
    classes = f"The class {doubtful[0]}" if len(doubtful) == 1 else f"One of the classes {', '.join(doubtful)}"
    raise ArtifactError(
        f"the artifact {name!r}, a {type_name(value).removeprefix('builtins.')}, can be pickled, but no later step "
        f"could load it: {type(error).__name__}: {error}",
        cause=f"{classes} can't be made again from its pickle: Python calls it with other arguments than it needs, or "
        "looks up an attribute that is not there yet.",
        advice="Give the class a __reduce__ (or __getstate__ and __setstate__), or keep what the object was made from, "
        f"such as its text; or delete it before self.next(): del self.{name}",
    ) from error


def _failure(encoded: Encoded) -> BaseException | None:
    """The exception with which the value can't be loaded."""
    try:
        encoded.load()
    except (Exception, SystemExit) as first:  # noqa: BLE001  loading runs the code of the value's classes
        if not encoded.buffers:
            return first
    else:
        return None
    try:
        # The first attempt's arrays could not be written to, as a later step's can.
        encoded.load(copy=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001  as above
        return error
    return None


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
