"""Artifacts: Python values as content-addressed blobs (invariants I3 and I4).

A value is pickled with protocol 5 (PEP 574): the pickle stream, then the buffers of arrays and data frames as they
lie in memory, so that neither writing nor reading copies them together. Small values travel inside of the commit
and cost no object of their own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from k8sflow.errors import ArtifactError
from k8sflow.storage.objects import Buffer, ObjectNotFoundError, ObjectStore

INLINE_BYTES = 2048
_ALIGNMENT = 64
_MAGIC = b"k8sflow5"
_HEADER = struct.Struct("<8sQI")
# What looks up a pickled class or function: its module, its name, and the ordinary way of looking it up.
Find = Callable[[str, str, Callable[[str, str], Any]], Any]


@dataclass(frozen=True)
class ArtifactRef:
    """Where a value is, and what it is.

    Args:
        blob: sha256 of the encoded value.
        size: Its length in bytes.
        encoding: ``pickle``, or ``pickle5`` where buffers follow the stream.
        type: The value's type, as ``module.Class``.
        inline: The encoded value itself where it is small, in base64.
    """

    blob: str
    size: int
    encoding: str
    type: str
    inline: str | None = None

    def to_document(self) -> dict[str, Any]:
        """The reference as JSON types."""
        document = {"blob": self.blob, "size": self.size, "encoding": self.encoding, "type": self.type}
        return document if self.inline is None else {**document, "inline": self.inline}

    @staticmethod
    def from_document(document: dict[str, Any]) -> ArtifactRef:
        """The reference that ``to_document`` wrote."""
        return ArtifactRef(**document)


class ArtifactStore:
    """Saves and loads the values of one flow.

    Args:
        store: Where the blobs are.
        flow: The flow's name; its blobs lie below it.
    """

    def __init__(self, store: ObjectStore, flow: str) -> None:
        self._store = store
        self._flow = flow

    @property
    def url(self) -> str:
        """Where the blobs are."""
        return self._store.url

    def save(self, value: object, name: str, known: ArtifactRef | None = None) -> ArtifactRef:
        """Saves a value; nothing is written where the same content is there already.

        Args:
            value: What to save.
            name: What the value is called, for the error.
            known: The reference under which an earlier task saved the value, perhaps unchanged.

        Raises:
            ArtifactError: The value can't be pickled.
            StorageError: The store refused.
        """
        parts, encoding = encode(value, name)
        blob = _sha256(parts)
        size = sum(len(part) for part in parts)
        if known is not None and (known.blob == blob or self._is_reordered(known, name, blob, size)):
            return known
        kind = _type_of(value)
        if size <= INLINE_BYTES:
            inline = base64.b64encode(b"".join(parts)).decode("ascii")
            return ArtifactRef(blob, size, encoding, kind, inline)
        self.save_blob(blob, parts)
        return ArtifactRef(blob, size, encoding, kind)

    def _is_reordered(self, known: ArtifactRef, name: str, blob: str, size: int) -> bool:
        """Whether a value is the known one as it looks after loading: a set's order of iteration may change by that."""
        if known.size != size or known.encoding != "pickle":
            return False
        parts, _ = encode(self.load(known, name), name)
        return _sha256(parts) == blob

    def is_same(self, value: object, ref: ArtifactRef, name: str) -> bool:
        """Whether a value is the one that was saved; a set is, in whatever order it iterates.

        Raises:
            ArtifactError: It can't be pickled, or the saved one can't be loaded.
        """
        parts, _ = encode(value, name)
        return _sha256(parts) == ref.blob or self._is_reordered(ref, name, _sha256(parts), sum(map(len, parts)))

    def save_blob(self, blob: str, parts: Sequence[Buffer]) -> None:
        """Writes content under its sha256, unless it is there; what a power cut has left of it is not that."""
        key = blob_key(self._flow, blob)
        if not self._store.exists(key, sum(memoryview(part).nbytes for part in parts)):
            self._store.put(key, parts)

    def load(self, ref: ArtifactRef, name: str, find: Find | None = None) -> Any:
        """The value, verified before it is unpickled.

        Args:
            ref: Where it is.
            name: What it is called, for the error.
            find: Looks up classes and functions; None for Python's own way.

        Raises:
            ArtifactError: The content is damaged or missing, or needs code that is not here.
        """
        data = self.load_blob(ref.blob, name) if ref.inline is None else _inline(ref.inline)
        self._verify(data, ref, name)
        try:
            return decode(data, ref.encoding, find)
        except ArtifactError as error:
            what = f"the artifact {name!r} (a {ref.type}) can't be loaded: {error.summary}"
            raise ArtifactError(what, cause=error.cause, advice=error.advice) from error
        except Exception as error:  # unpickling runs the code of the value's classes, which may raise anything
            raise ArtifactError(
                f"the artifact {name!r} (a {ref.type}) can't be loaded: {type(error).__name__}: {error}",
                cause="The code or a package that it was made with is not here, or has another version.",
                advice="Import the flow's module, and install the packages of the step that made it.",
            ) from error

    def load_blob(self, blob: str, name: str) -> Buffer:
        """The bytes of a blob, not verified.

        Raises:
            ArtifactError: There is none.
        """
        try:
            return self._store.get(blob_key(self._flow, blob))
        except ObjectNotFoundError as error:
            raise ArtifactError(
                f"the content of {name!r} is missing: there is no blob {blob} in {self._store.url}.",
                cause="It was removed since the run.",
            ) from error

    def _verify(self, data: Buffer, ref: ArtifactRef, name: str) -> None:
        found = _sha256([data])
        if found != ref.blob:
            # A blob that is there is not written again, so the damaged one has to go first.
            first = "" if ref.inline is not None else f"Delete {blob_key(self._flow, ref.blob)} there. "
            raise ArtifactError(
                f"the content of {name!r} in {self._store.url} is damaged: its sha256 is {found}, "
                f"but {ref.blob} was saved.",
                cause="Somebody or something changed the store. It was not unpickled.",
                advice=f"{first}Run the step that made it again.",
            )


def blob_key(flow: str, blob: str) -> str:
    """Where a blob lies in the store."""
    return f"{flow}/blobs/{blob[:2]}/{blob}"


def _inline(text: str) -> bytes:
    """The bytes of an inline value; none where it is damaged, which the check of its hash tells."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _sha256(parts: Sequence[Buffer]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def encode(value: object, name: str) -> tuple[list[Buffer], str]:
    """The pieces of an encoded value, and the name of the encoding.

    Raises:
        ArtifactError: The value can't be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception as error:  # noqa: BLE001  pickling runs the code of the value's classes, which may raise anything
        buffers.clear()
        stream = _dump_by_value(value, name, buffers, error)
    if not buffers:
        return [stream], "pickle"
    views = [buffer.raw() for buffer in buffers]
    header = _HEADER.pack(_MAGIC, len(stream), len(views)) + struct.pack(f"<{len(views)}Q", *map(len, views))
    parts: list[Buffer] = [header + stream]
    position = len(parts[0])
    for view in views:
        if padding := -position % _ALIGNMENT:
            parts.append(bytes(padding))
        parts.append(view)
        position += padding + len(view)
    return parts, "pickle5"


def _dump_by_value(value: object, name: str, buffers: list[pickle.PickleBuffer], first: Exception) -> bytes:
    """What pickle can't do, by cloudpickle: lambdas, closures and classes made in a function."""
    import cloudpickle  # noqa: PLC0415  needed for few values

    stream = io.BytesIO()
    try:
        cloudpickle.CloudPickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    except Exception as error:  # as with pickle: the code of the value's classes may raise anything
        raise ArtifactError(
            f"the artifact {name!r}, a {_type_of(value).removeprefix('builtins.')}, can't be pickled: {error}",
            cause=_culprit(value) or (str(first) if str(first) != str(error) else ""),
            advice="Keep what it was made from, or make it in the step that uses it; "
            f"or delete it before self.next(): del self.{name}",
        ) from error
    return stream.getvalue()


def _type_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _culprit(value: object) -> str:
    """Which part of a container or an object can't be pickled, where one level down tells it."""
    import cloudpickle  # noqa: PLC0415

    parts: list[tuple[str, object]] = []
    if isinstance(value, dict):
        parts = [(f"[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"[{index}]", part) for index, part in enumerate(value)]
    elif hasattr(value, "__dict__"):
        parts = [(f".{key}", part) for key, part in vars(value).items()]
    for place, part in parts[:1000]:
        try:
            cloudpickle.dumps(part)
        except Exception:  # noqa: BLE001  as above: any error means that this part can't be pickled
            return f"It is its part {place}, a {_type_of(part).removeprefix('builtins.')}."
    return ""


def decode(data: Buffer, encoding: str, find: Find | None = None) -> Any:
    """The value that ``encode`` took apart.

    Raises:
        ArtifactError: The encoding is not known here.
    """
    if encoding == "pickle":
        return _unpickled(data, (), find)
    if encoding != "pickle5":
        raise ArtifactError(f"the encoding {encoding!r} is not known.", advice="A newer k8sflow wrote it: upgrade.")
    view = memoryview(data).cast("B")
    _, stream_bytes, count = _HEADER.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, _HEADER.size)
    position = _HEADER.size + 8 * count
    stream = view[position : position + stream_bytes]
    position += stream_bytes
    buffers = []
    for length in lengths:
        position += -position % _ALIGNMENT
        piece = view[position : position + length]
        buffers.append(bytearray(piece) if view.readonly else piece)
        position += length
    return _unpickled(stream, buffers, find)


def _unpickled(stream: Buffer, buffers: Sequence[Buffer], find: Find | None) -> Any:
    if find is None:
        return pickle.loads(stream, buffers=buffers)
    return _Unpickler(stream, buffers, find).load()


class _Unpickler(pickle.Unpickler):
    """Looks classes and functions up in a way of its own."""

    def __init__(self, stream: Buffer, buffers: Sequence[Buffer], find: Find) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        return self._find(module, name, super().find_class)
