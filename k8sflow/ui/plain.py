"""Reads a pickled value as data: no class is looked up, no module imported, and no function called.

A pickle is a program that names classes and functions, and calls them. Here each name gives a class of this module
that only remembers what it was called with. So numbers, texts, lists and dictionaries come out as they are, tuples and
sets as lists, arrays as their numbers, dates and paths as people write them, and everything else as its name and its
parts.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from k8sflow.errors import ArtifactError
from k8sflow.storage.encoding import stored
from k8sflow.storage.objects import Buffer
from k8sflow.ui.plain_values import text_of

# Python takes more than a second or two to read longer ones.
MOST_STREAM_BYTES = 2 << 20
_MOST_NUMBERS = 2_000
_DEEPEST = 50
# A pickle may refer to a part again and again, so a hundred bytes may stand for a value that no memory holds. One that
# refers to each of its parts a few times has no more parts than this for each byte.
_PARTS_OF_A_BYTE = 4
_FEWEST_PARTS, _MOST_PARTS = 1_000, 400_000
_LETTERS_OF_A_PART = 64
_SHORT_TEXT = 100
_MOST_CLASSES = 5_000
_MOST_BITS = 10_000
_MOST_ARGUMENTS, _DEEPEST_ARGUMENT = 100, 3
_CODES = {
    "f8": "d",
    "f4": "f",
    "f2": "e",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
    "b1": "?",
}
_CONTAINERS = {"collections.OrderedDict": dict, "collections.defaultdict": dict, "collections.deque": list}


class Part:
    """A value of a class that was not loaded: its name, and what it was made from."""

    name = ""

    def __new__(cls, *arguments: Any, **named: Any) -> Part:  # noqa: PYI034  Python 3.10 has no Self
        """Remembers the arguments."""
        self = super().__new__(cls)
        self.__dict__.update(arguments=(*arguments, *named.values()), state=None, items=[], pairs={})
        return self

    def __init__(self, *_: Any, **__: Any) -> None: ...

    arguments: tuple[Any, ...]
    state: Any
    items: list[Any]
    pairs: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def append(self, item: Any) -> None:
        """Remembers an item, as of a list."""
        self.items.append(item)

    def extend(self, items: Sequence[Any]) -> None:
        """Remembers items."""
        self.items.extend(items)

    add = append

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs[key] = value

    def __call__(self, *arguments: Any, **named: Any) -> Part:
        """The result of a method that a part stands for, as of ``getattr(ZoneInfo, "_unpickle")("Europe/Oslo")``."""
        found = Part(*arguments, **named)
        found.__dict__["name"] = self.name
        if self.name == "builtins.getattr" and len(self.arguments) == 2:  # noqa: PLR2004  a class and a name
            owner, method = self.arguments
            if isinstance(owner, type) and issubclass(owner, Part) and isinstance(method, str):
                found.__dict__["name"] = f"{owner.name}.{method[:_SHORT_TEXT]}"
        return found

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True)
class Array:
    """The numbers of an array of numpy.

    Args:
        dtype: Their type, as ``float64``'s ``f8``.
        shape: The shape.
        numbers: The first of them, in the order of rows.
    """

    dtype: str
    shape: tuple[int, ...]
    numbers: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"array of {self.dtype}, shape {'×'.join(map(str, self.shape)) or 'none'}"


def read_plain(data: Buffer, encoding: str, most: int | None = None) -> Any:
    """The value of an artifact, with a ``Part`` for each object of a class.

    Args:
        data: The stored bytes.
        encoding: Their encoding.
        most: The length of the value before compression, if it is known.

    Raises:
        ArtifactError: It is too large, compressed in a way that can't be read here, or not a pickle.
    """
    try:
        parts = stored(data, encoding, most)
        compressed = parts.stream
        if isinstance(compressed, bytes | bytearray | memoryview):
            stream = bytes(compressed[: MOST_STREAM_BYTES + 1])
        else:
            stream = bytes(compressed.read(MOST_STREAM_BYTES + 1))
    except (ValueError, struct.error) as error:
        raise ArtifactError(f"it is not an artifact: {error}") from error
    if len(stream) > MOST_STREAM_BYTES:
        raise ArtifactError("it is too large to be shown.", advice="Load it in Python, with the client.")
    try:
        most_parts = min(max(len(stream) * _PARTS_OF_A_BYTE, _FEWEST_PARTS), _MOST_PARTS)
        return _plain(_Reader(io.BytesIO(stream), parts.buffers).load(), [most_parts], 0)
    except Exception as error:  # a damaged pickle may raise anything
        raise ArtifactError(f"it can't be read as data: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Stated:
    """Stands in for a value that is too long to show.

    Args:
        words: The words.
    """

    words: str

    def __repr__(self) -> str:
        return f"<{self.words}>"


@dataclass(frozen=True)
class Written:
    """A value of the standard library, such as a date.

    Args:
        text: The value as people write it.
    """

    text: str

    def __repr__(self) -> str:
        return self.text


class _Tuple(tuple[Any, ...]):
    """A tuple whose hash doesn't depend on its items: that of nested ones takes for ever if they share their items."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class _Reader(pickle._Unpickler):  # noqa: SLF001  the one in C reserves as much memory as a damaged pickle asks for
    def __init__(self, stream: io.BytesIO, buffers: Sequence[Buffer]) -> None:
        super().__init__(stream, buffers=buffers)
        self._classes: dict[str, type[Part]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A class that remembers."""
        full = f"{module}.{name}"
        if full not in self._classes:
            if len(self._classes) == _MOST_CLASSES:
                raise pickle.UnpicklingError(f"it names more than {_MOST_CLASSES:,} classes")
            self._classes[full] = type("Part", (Part,), {"name": full})
        return self._classes[full]

    def _take_tuple(self, count: int) -> None:
        self.stack[-count:] = [_Tuple(self.stack[-count:])]  # type: ignore[attr-defined]

    def _load_tuple(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.append(_Tuple(items))  # type: ignore[attr-defined]

    def _load_bytearray(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        if count > MOST_STREAM_BYTES:
            raise pickle.UnpicklingError(f"it has a bytearray of {count:,} bytes")
        self.append(bytearray(self.read(count)))  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,  # noqa: SLF001
        pickle.TUPLE[0]: _load_tuple,
        pickle.TUPLE1[0]: lambda self: self._take_tuple(1),
        pickle.TUPLE2[0]: lambda self: self._take_tuple(2),
        pickle.TUPLE3[0]: lambda self: self._take_tuple(3),
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }

    def persistent_load(self, pid: Any) -> Any:
        """Refuses: k8sflow writes none."""
        raise pickle.UnpicklingError(f"an unknown reference {pid!r}")


def _plain(value: Any, room: list[int], depth: int) -> Any:
    """A value in which parts that are containers or arrays are replaced by their content.

    Args:
        value: The value.
        room: How many parts there may still be.
        depth: How deep in the whole it is.
    """
    room[0] -= 1
    if isinstance(value, dict | list | tuple | set | frozenset | Part):
        return "…" if depth > _DEEPEST or room[0] < 0 else _opened(value, room, depth)
    if isinstance(value, str | bytes | bytearray):
        room[0] -= len(value) // _LETTERS_OF_A_PART
        return value if room[0] >= 0 else value[:_SHORT_TEXT]
    is_long = isinstance(value, int) and value.bit_length() > _MOST_BITS
    return Stated(f"int of {value.bit_length():,} bits") if is_long else value


def _opened(value: Any, room: list[int], depth: int) -> Any:
    """A container or a part, with its content in the same form."""
    if isinstance(value, dict):
        return {_key(key, room, depth): _plain(each, room, depth + 1) for key, each in value.items()}
    if not isinstance(value, Part):
        return [_plain(each, room, depth + 1) for each in value]
    if value.name in _CONTAINERS:
        return _plain(value.pairs if _CONTAINERS[value.name] is dict else value.items, room, depth + 1)
    text = _text_of(value, 0)
    return (Written(text) if text is not None else None) or _array(value) or _fields(value, room, depth)


def _text_of(part: Part, depth: int) -> str | None:
    """The text of a date, a path and the like; None for any other value."""
    if depth > _DEEPEST_ARGUMENT or len(part.arguments) > _MOST_ARGUMENTS:
        return None
    arguments = (_text_of(each, depth + 1) if isinstance(each, Part) else each for each in part.arguments)
    return text_of(part.name, tuple(arguments), part.state)


def _key(key: Any, room: list[int], depth: int) -> Any:
    found = _plain(key, room, depth + 1)
    return found if isinstance(found, str | int | float | bool | None) else repr(found)


def _fields(part: Part, room: list[int], depth: int) -> Any:
    """The parts of a value of a class, under the name of the class."""
    state = part.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # noqa: PLR2004  with __slots__
        state = {**(state[0] or {}), **state[1]}
    content: Any = state if state is not None else [each for each in part.arguments if not _is_class(each)]
    content = part.pairs or part.items or content
    return {part.name: _plain(content, room, depth + 1)} if content else part


def _is_class(value: Any) -> bool:
    return isinstance(value, type)


def _array(part: Part) -> Array | None:
    """The array that a part is; None for any other value, and for an array of other things than numbers."""
    name = part.name.replace("._core.", ".core.")
    if name == "numpy.core.numeric._frombuffer":
        data, dtype, shape, order = part.arguments[:4]
        if order != "C" and len(shape) > 1:
            return None
    elif name == "numpy.core.multiarray._reconstruct" and isinstance(part.state, tuple):
        _, shape, dtype, is_fortran, data = part.state
        if is_fortran and len(shape) > 1:
            return None
    elif name == "numpy.core.multiarray.scalar":
        (dtype, data), shape = part.arguments, ()
    else:
        return None
    if not isinstance(data, bytes | bytearray | memoryview | pickle.PickleBuffer):
        return None
    if not isinstance(shape, tuple) or not all(isinstance(each, int) and 0 <= each < 1 << 62 for each in shape):
        return None
    return _numbers(memoryview(data).cast("B"), dtype, tuple(shape))


def _numbers(data: memoryview, dtype: Part, shape: tuple[int, ...]) -> Array | None:
    kind = dtype.arguments[0] if isinstance(dtype, Part) and dtype.arguments else ""
    code = _CODES.get(kind)
    if code is None:
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and dtype.state[1:2] != ("|",) else "<"
    order = order if order in {"<", ">"} else "<"
    count = min(len(data) // struct.calcsize(code), _MOST_NUMBERS)
    return Array(kind, shape, struct.unpack_from(f"{order}{count}{code}", data))
