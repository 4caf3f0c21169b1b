"""Arrays of strings, as numpy and pandas have them: an array of pointers to Python objects.

pickle writes the objects one by one. Where the same strings come again and again, as in a column of names, an array is
stored as its distinct strings, and for each element the number of its string. Other arrays are left to pickle: those
with other objects than strings, None, NaN and pandas' NA, or with too many distinct strings.
"""

from __future__ import annotations

import math
import pickle
import struct
import sys
from typing import Any, Literal

# Below this, pickle is fast enough.
_LEAST_ELEMENTS = 1000
# In references to values with such arrays, by which versions that can't read them notice.
STRINGS = "k8sflow.strings==1"
_SAMPLES = 20_000
# An array is left to pickle if more of the sampled, or of all strings are distinct.
_MOST_DISTINCT_OF_SAMPLE = 0.95
_MOST_DISTINCT = 0.5
# Elements that are compared at a time.
_COMPARED = 1 << 16
_NAN = struct.pack("<d", math.nan)


def reduce_array(array: Any) -> Any:
    """The parts of a numpy array for the pickler, as ``__reduce_ex__(5)`` returns them."""
    dtype = array.dtype
    if dtype.char != "O" or dtype.metadata or array.size < _LEAST_ELEMENTS:
        return array.__reduce_ex__(5)
    order: Literal["C", "F"] = "F" if array.flags.fnc else "C"
    values = array.reshape(-1, order=order)
    found = _numbered(values)
    if found is None:
        return array.__reduce_ex__(5)
    distinct, numbers = found
    return array_of_strings, (array.shape, order, distinct, pickle.PickleBuffer(numbers), numbers.dtype.str)


def array_of_strings(
    shape: tuple[int, ...], order: Literal["C", "F"], distinct: list[object], numbers: Any, dtype: str
) -> Any:
    """Rebuilds an array; pickles contain this function's name, so it can't be renamed."""
    import numpy as np  # noqa: PLC0415  only where an array was saved

    objects = np.empty(len(distinct), dtype=object)
    objects[:] = distinct
    values = objects[np.frombuffer(numbers, dtype=dtype)]
    if len(shape) == 1:
        return values
    array = np.empty(shape, dtype=object, order=order)
    array.reshape(-1, order=order)[:] = values
    return array


def _numbered(array: Any) -> tuple[list[object], Any] | None:
    """The distinct elements of an array in the order of their first appearance, and the number of each element.

    None if the array is better left to pickle.
    """
    import numpy as np  # noqa: PLC0415  there is an array, so it is imported

    sample = array[:: max(1, array.size // _SAMPLES)].tolist()
    if not _are_storable(sample) or len(set(sample)) > _MOST_DISTINCT_OF_SAMPLE * len(sample):
        return None
    values = array.tolist()
    if set(map(type, values)) == {str} and (fast := _numbered_by_pandas(array)) is not None:
        distinct, numbers = fast
    elif _are_storable(values):
        distinct = list(dict.fromkeys(values))
        number_of = dict(zip(distinct, range(len(distinct)), strict=True))
        numbers = np.fromiter(map(number_of.__getitem__, values), np.int64, array.size)
    else:
        return None
    if len(distinct) > _MOST_DISTINCT * array.size or not all(map(_is_storable, distinct)):
        return None
    smallest = next(kind for kind in ("<u1", "<u2", "<u4") if len(distinct) <= np.iinfo(kind).max)
    return distinct, numbers.astype(smallest)


def _numbered_by_pandas(array: Any) -> tuple[list[object], Any] | None:
    """As ``_numbered``, of strings only, by pandas if the process has imported it."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "factorize"):  # still being imported
        return None
    numbers, distinct = pandas.factorize(array, use_na_sentinel=False)
    # pandas hashes strings as UTF-8: it takes a lone surrogate for the text of its repr and, in versions before 3,
    # the end of a string for a NUL.
    if not all(_are_equal(array, distinct, numbers, first) for first in range(0, array.size, _COMPARED)):
        return None
    return distinct.tolist(), numbers


def _are_equal(array: Any, distinct: Any, numbers: Any, first: int) -> bool:
    part = slice(first, first + _COMPARED)
    return bool((distinct[numbers[part]] == array[part]).all())


def _are_storable(values: list[object]) -> bool:
    kinds = set(map(type, values))
    return kinds <= ({str, type(None), float} | _type_of_na())


def _is_storable(value: object) -> bool:
    """True if a value of a type that ``_are_storable`` accepts comes back as it was: of the floats, only NaN."""
    return type(value) is not float or struct.pack("<d", value) == _NAN


def _type_of_na() -> set[type]:
    return {type(getattr(sys.modules.get("pandas"), "NA", None))}
