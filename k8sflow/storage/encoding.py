"""The bytes of an artifact: a pickle of protocol 5, followed by the buffers of arrays and data frames (PEP 574).

Buffers are written straight from memory, so neither writing nor reading copies them. Plug-ins may take over the values
of a type (``storage/serializers.py``); arrays of strings have a form of their own (``storage/strings.py``).
"""

from __future__ import annotations

import copyreg
import hashlib
import io
import pickle
import struct
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn

from k8sflow.articles import with_article
from k8sflow.errors import ArtifactError
from k8sflow.flow.spec import READ_MODULE, FlowSpec
from k8sflow.storage.culprit import path_to_culprit
from k8sflow.storage.objects import Buffer
from k8sflow.storage.serializers import Installed, reduce_with, serializer_for
from k8sflow.storage.strings import STRINGS, array_of_strings, reduce_array

if TYPE_CHECKING:
    from k8sflow.storage.compression import Stream

_ALIGNMENT = 64
_MAGIC = b"k8sflow5"
_HEADER = struct.Struct("<8sQI")
# Classes whose objects can be pickled, but are of use in this process only, and the reason.
_OF_THIS_PROCESS = {
    f"{FlowSpec.__module__}.{FlowSpec.__qualname__}": "it holds the flow itself (self), of which later steps would "
    "get a copy in its current state. Store the values that it reads.",
    "tempfile.TemporaryDirectory": "the folder is deleted when this task ends. Store its content.",
    "multiprocessing.shared_memory.SharedMemory": "the memory is freed when this task ends. Store its content.",
}
# Looks up a pickled class or function, given its module, its name, and the ordinary lookup.
Find = Callable[[str, str, Callable[[str, str], Any]], Any]


@dataclass(frozen=True)
class Shape:
    """The differences between two encodings with buffers that can be seen without reading the buffers.

    Args:
        stream: Checksum of the pickle stream.
        lengths: The length of each buffer in bytes.
    """

    stream: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """A pickled value.

    Args:
        stream: The pieces of the pickle stream.
        buffers: The buffers to which the stream refers, in the memory of the value itself.
        kinds: The classes of the value's objects for which pickle has no built-in encoding.
        serializers: The packages whose serializers stored parts of it, as ``name==version``, k8sflow's own form of
            arrays of strings among them.
    """

    stream: tuple[Buffer, ...]
    buffers: tuple[memoryview, ...]
    kinds: frozenset[type]
    serializers: tuple[str, ...] = ()

    @cached_property
    def parts(self) -> list[Buffer]:
        """All pieces and buffers, in the order in which they are written."""
        if not self.buffers:
            return list(self.stream)
        lengths = [len(buffer) for buffer in self.buffers]
        header = _HEADER.pack(_MAGIC, self.stream_size, len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths)
        parts: list[Buffer] = [header, *self.stream]
        position = len(header) + self.stream_size
        for buffer in self.buffers:
            if padding := -position % _ALIGNMENT:
                parts.append(bytes(padding))
            parts.append(buffer)
            position += padding + len(buffer)
        return parts

    @property
    def name(self) -> str:
        """The name of the encoding: ``pickle``, or ``pickle5`` if buffers follow the stream."""
        return "pickle5" if self.buffers else "pickle"

    @cached_property
    def stream_size(self) -> int:
        """Length of the pickle stream in bytes."""
        return sum(map(len, self.stream))

    @cached_property
    def size(self) -> int:
        """Length of all parts in bytes."""
        return sum(map(len, self.parts))

    @cached_property
    def blob(self) -> str:
        """sha256 of all parts."""
        return sha256(self.parts)

    @cached_property
    def shape(self) -> Shape:
        """Checksum and lengths."""
        stream = 0
        for piece in self.stream:
            stream = zlib.crc32(piece, stream)
        return Shape(stream, tuple(map(len, self.buffers)))

    def load(self, *, copy: bool = False) -> Any:
        """Loads the value again; it shares the buffers, and can't write to them.

        Args:
            copy: True to give it copies of the buffers instead.
        """
        buffers = [bytearray(buffer) if copy else buffer.toreadonly() for buffer in self.buffers]
        return pickle.loads(b"".join(self.stream), buffers=buffers)


def sha256(parts: Sequence[Buffer]) -> str:
    """The hash of the joined parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def type_name(value: object) -> str:
    """A value's class, as ``module.Class``."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def encode(value: object, name: str) -> Encoded:
    """Pickles a value.

    Args:
        value: The value.
        name: The artifact's name, for errors.

    Raises:
        ArtifactError: The value can't be pickled.
    """
    try:
        found = pickled(value, pickle.Pickler, copyreg.dispatch_table)
    except Exception as error:  # noqa: BLE001  pickling runs the code of the value's classes, which may raise anything
        return _by_value(value, name, error)
    if why := _use_here_only(found):
        raise _unpicklable(value, name, why)
    return _by_value(value, name, None) if _is_of_another_run(found) else found


def _use_here_only(found: Encoded) -> str:
    """The reason why a pickled value can't be used in another process; empty if it can."""
    names = (f"{base.__module__}.{base.__qualname__}" for kind in found.kinds for base in kind.__mro__)
    return next((_OF_THIS_PROCESS[name] for name in names if name in _OF_THIS_PROCESS), "")


def _unpicklable(value: object, name: str, why: object, cause: str = "") -> ArtifactError:
    kind = type_name(value).removeprefix("builtins.")
    return ArtifactError(
        f"the artifact {name!r}, a {kind}, can't be pickled: {why}",
        cause=cause,
        advice="Store the data from which it is built, or build it in the step that uses it; "
        f"or delete it before self.next(): del self.{name}",
    )


def _is_of_another_run(found: Encoded) -> bool:
    """True if a value has classes from another run's code, whose module names exist in this process only."""
    if not any(name.startswith(READ_MODULE) for name in list(sys.modules)):
        return False
    return any(READ_MODULE.encode() in piece for piece in found.stream if isinstance(piece, bytes))


def pickled(value: object, pickler: type[Any], reducers: Mapping[type, Callable[[Any], Any]]) -> Encoded:
    """Pickles a value with a given class of pickler.

    Args:
        value: The value.
        pickler: A subclass of ``pickle.Pickler``.
        reducers: The pickler's reducers by class.
    """
    stream = _Pieces()
    buffers: list[pickle.PickleBuffer] = []
    seen = _Seen(reducers)
    # The pickler reads the table from its class when it is constructed.
    kind = type(pickler.__name__, (pickler,), {"dispatch_table": seen})
    try:
        kind(stream, protocol=5, buffer_callback=buffers.append).dump(value)
        raw = tuple(map(_raw, buffers))
    finally:
        for buffer in seen.opened:
            buffer.release()
    return Encoded(tuple(stream), raw, frozenset(seen.kinds), tuple(sorted(seen.serializers)))


def _raw(buffer: pickle.PickleBuffer) -> memoryview:
    """The bytes of a buffer, as a view that doesn't lead to another view.

    Before Python 3.12.7, the garbage collector crashes when it finds a view of a PickleBuffer of a view in a reference
    cycle, such as that of an exception's traceback: https://github.com/python/cpython/issues/77894
    """
    raw = buffer.raw()
    if not isinstance(raw.obj, memoryview) or not raw.obj.c_contiguous:
        return raw
    return raw.obj.cast("B") if raw.nbytes else memoryview(b"")


class _Pieces(list[Buffer]):
    """A file that keeps the written pieces themselves, so that large values are not copied."""

    def write(self, piece: Buffer) -> int:
        self.append(piece)
        return len(piece)


class _Seen(dict[type, Callable[[Any], Any]]):
    """A pickler's table of reducers, with those of plug-ins; it records the classes that are looked up in it."""

    def __init__(self, reducers: Mapping[type, Callable[[Any], Any]]) -> None:
        super().__init__()
        self._reducers = reducers
        self.kinds: set[type] = set()
        self.serializers: set[str] = set()
        self.opened: list[pickle.PickleBuffer] = []

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        if kind not in self.kinds:
            self.kinds.add(kind)
            if (chosen := serializer_for(kind)) is not None:
                self[kind] = partial(self._reduced, chosen)
                return self[kind]
            if kind not in self._reducers and kind.__module__ == "numpy" and kind.__name__ == "ndarray":
                self[kind] = self._reduced_array
                return self[kind]
        return self._reducers[kind]

    def _reduced_array(self, array: Any) -> Any:
        parts = reduce_array(array)
        if parts[0] is array_of_strings:
            self.serializers.add(STRINGS)
        return parts

    def _reduced(self, chosen: Installed, value: Any) -> Any:
        """The parts of a value of which a plug-in has the type."""
        parts = reduce_with(chosen, value, self.opened)
        if parts is not None:
            self.serializers.add(chosen.label)
            return parts
        ordinary = self._reducers.get(type(value))
        return value.__reduce_ex__(5) if ordinary is None else ordinary(value)


def _by_value(value: object, name: str, first: Exception | None) -> Encoded:
    """Pickles with cloudpickle values that pickle can't: lambdas, closures and classes defined in a function.

    Raises:
        ArtifactError: cloudpickle can't pickle it either.
    """
    try:
        found = _cloudpickled(value)
    except Exception as error:  # as with pickle: the code of the value's classes may raise anything
        path, part = path_to_culprit(value, f"self.{name}", _cloudpickled)
        cause = str(first) if first and str(first) != str(error) else ""
        if part is not value:
            kind = with_article(type_name(part).removeprefix("builtins."))
            cause = f"The part that can't be pickled is {path}, {kind}."
        raise _unpicklable(value, name, error, cause) from error
    if why := _use_here_only(found):
        raise _unpicklable(value, name, why)
    return found


def _cloudpickled(value: object) -> Encoded:
    import cloudpickle  # noqa: PLC0415  needed for few values

    known = cloudpickle.CloudPickler.dispatch_table
    # cloudpickle would turn these into bytes and io.StringIO, which are different types from the saved ones.
    reducers = {**known, memoryview: _refuse_view, io.TextIOWrapper: _file_reducer(known[io.TextIOWrapper])}
    return pickled(value, cloudpickle.CloudPickler, reducers)


def _refuse_view(view: memoryview) -> NoReturn:
    raise TypeError(f"a memoryview of {view.nbytes} bytes refers to memory of another object. Store bytes(view).")


def _file_reducer(ordinary: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def reduce(file: io.TextIOWrapper) -> Any:
        if file in {sys.stdin, sys.stdout, sys.stderr}:
            return ordinary(file)
        raise TypeError(f"the file {file.name!r} is open in this process only. Store its name or its content.")

    return reduce


@dataclass(frozen=True)
class Stored:
    """A value as it is stored, taken apart.

    Args:
        stream: The pickle stream.
        buffers: The buffers to which it refers.
    """

    stream: Buffer | Stream
    buffers: Sequence[memoryview] = ()

    @property
    def shape(self) -> Shape:
        """Checksum and lengths; of a compressed stream only after ``load``."""
        stream = self.stream
        known = zlib.crc32(stream) if isinstance(stream, bytes | bytearray | memoryview) else stream.checksum
        return Shape(known, tuple(map(len, self.buffers)))

    def load(self, find: Find | None = None) -> Any:
        """The value, which may write to its buffers.

        Args:
            find: Looks up classes and functions; None for Python's own lookup.
        """
        buffers = [bytearray(buffer) if buffer.readonly else buffer for buffer in self.buffers]
        return _unpickled(self.stream, buffers, find)


def stored(data: Buffer, encoding: str, most: int | None = None) -> Stored:
    """Takes apart the parts of an encoding, joined.

    Args:
        data: The joined parts.
        encoding: The name of the encoding.
        most: The length of the parts before compression at most, if it is known.

    Raises:
        ArtifactError: The encoding is unknown to this version, the data is damaged, or is compressed by a library that
            this process doesn't have.
    """
    if encoding == "pickle":
        return Stored(data)
    if encoding == "pickle5":
        return Stored(*_split(memoryview(data).cast("B")))
    if encoding == "pickle5+zstd":
        from k8sflow.storage.compression import decompressed  # noqa: PLC0415  it starts threads, which few values need

        return Stored(*decompressed(data, most))
    raise ArtifactError(f"the encoding {encoding!r} is unknown.", advice="A newer k8sflow wrote it: upgrade.")


def _split(view: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The stream and the buffers."""
    _, stream_bytes, count = _HEADER.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, _HEADER.size)
    position = _HEADER.size + 8 * count
    stream = view[position : position + stream_bytes]
    position += stream_bytes
    pieces = []
    for length in lengths:
        position += -position % _ALIGNMENT
        pieces.append(view[position : position + length])
        position += length
    return stream, pieces


def _unpickled(stream: Buffer | Stream, buffers: Sequence[Buffer], find: Find | None) -> Any:
    if isinstance(stream, bytes | bytearray | memoryview):
        if find is None:
            return pickle.loads(stream, buffers=buffers)
        return _Unpickler(io.BytesIO(stream), buffers, find).load()
    if find is None:
        return pickle.Unpickler(stream, buffers=buffers).load()
    return _Unpickler(stream, buffers, find).load()


class _Unpickler(pickle.Unpickler):
    """Looks up classes and functions with a given function."""

    def __init__(self, stream: io.BytesIO | Stream, buffers: Sequence[Buffer], find: Find) -> None:
        super().__init__(stream, buffers=buffers)
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        return self._find(module, name, super().find_class)
