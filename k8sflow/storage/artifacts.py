"""Artifacts: Python values as content-addressed blobs (invariants I3 and I4).

Small values are stored inside the commit of the task that set them, and need no object of their own.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8sflow.errors import ArtifactError, ObjectNotFoundError
from k8sflow.storage.blob_writes import MOST_BYTES, BlobWrites
from k8sflow.storage.condemned import REUSED_SECONDS, outlasted
from k8sflow.storage.encoding import Encoded, Find, Shape, encode, sha256, stored, type_name
from k8sflow.storage.loadable import check_loadable
from k8sflow.storage.objects import Buffer, ObjectStore
from k8sflow.storage.sameness import differs_by_caches, is_unchanged
from k8sflow.storage.written import get_written

if TYPE_CHECKING:
    from k8sflow.storage.compression import Compressed

INLINE_BYTES = 2048
# Smaller values are not compressed.
LEAST_COMPRESSED_BYTES = 1 << 16
# Blobs that a task may need again: the items of a foreach, which a join reads once for each branch.
_KEPT_BLOB_BYTES = 2 << 20
_KEPT_BLOBS = 4


@dataclass(frozen=True)
class ArtifactRef:
    """A reference to a stored value.

    Args:
        blob: sha256 of the stored bytes.
        size: The length of the stored bytes.
        encoding: ``pickle``; ``pickle5`` if buffers follow the stream; ``pickle5+zstd`` if some of it is compressed.
        type: The value's type, as ``module.Class``.
        inline: The encoded value itself in base64, if it is small.
        serializers: The packages whose serializers stored parts of it, as ``name==version``.
        content: sha256 of the encoded value before compression; empty if that is the blob.
        content_size: The length of the encoded value before compression; 0 if that is the size.
    """

    blob: str
    size: int
    encoding: str
    type: str
    inline: str | None = None
    serializers: tuple[str, ...] = ()
    content: str = ""
    content_size: int = 0

    @property
    def value_hash(self) -> str:
        """sha256 of the encoded value, whether or not it is compressed."""
        return self.content or self.blob

    @property
    def value_size(self) -> int:
        """The length of the encoded value in bytes, whether or not it is compressed."""
        return self.content_size or self.size

    def to_document(self) -> dict[str, Any]:
        """The reference as JSON types.

        The newer fields are appended to the encoding, as ``pickle5+zstd;content=…;content_size=…;serializers=…``. Older
        versions refuse other keys as damage, but ask for an upgrade when they load a value of an unknown encoding.
        """
        newer = {"content": self.content, "content_size": self.content_size, "serializers": ",".join(self.serializers)}
        encoding = ";".join([self.encoding, *(f"{name}={value}" for name, value in newer.items() if value)])
        document = {"blob": self.blob, "size": self.size, "encoding": encoding, "type": self.type}
        return document if self.inline is None else {**document, "inline": self.inline}

    @staticmethod
    def from_document(document: dict[str, Any]) -> ArtifactRef:
        """The reference that ``to_document`` wrote; the encoding of a newer version stays as it is."""
        encoding, *parts = document["encoding"].split(";")
        if not parts:
            return ArtifactRef(**document)
        newer = dict(part.partition("=")[::2] for part in parts)
        size, serializers = newer.get("content_size", "0"), newer.get("serializers", "")
        if not newer.keys() <= {"content", "content_size", "serializers"} or not size.isdecimal():
            return ArtifactRef(**document)
        return ArtifactRef(
            **{**document, "encoding": encoding},
            serializers=tuple(serializers.split(",")) if serializers else (),
            content=newer.get("content", ""),
            content_size=int(size),
        )


class ArtifactStore:
    """Saves and loads the values of one flow.

    Args:
        store: The store of the blobs.
        flow: The flow's name, which is the first part of the blobs' keys.
        compression: ``none``, or ``zstd`` for values that become much smaller by it.
    """

    def __init__(self, store: ObjectStore, flow: str, compression: str = "none") -> None:
        self._store = store
        self._flow = flow
        self._compression = compression
        self._shapes: dict[str, Shape] = {}
        self._kept: dict[str, bytes] = {}
        self._writes: BlobWrites | None = None

    @property
    def store(self) -> ObjectStore:
        """The store of the blobs."""
        return self._store

    @contextlib.contextmanager
    def written_together(self) -> Iterator[None]:
        """Lets the calls of ``save`` in a ``with`` return before small blobs are written; all are at its end.

        Raises:
            StorageError: At the end: the store refused a write.
        """
        with BlobWrites(self._store.parallel_reads) as writes:
            self._writes = writes
            try:
                yield
            finally:
                self._writes = None

    def save(
        self, value: object, name: str, known: ArtifactRef | None = None, *, inline_bytes: int = INLINE_BYTES
    ) -> ArtifactRef:
        """Saves a value, unless the store already has the same content.

        Args:
            value: The value.
            name: The artifact's name, for errors.
            known: The reference under which an earlier task saved the value, which may be unchanged.
            inline_bytes: The size up to which a value becomes a part of its reference.

        Raises:
            ArtifactError: The value can't be pickled, or can't be loaded from its pickle.
            StorageError: The store refused the write.
        """
        found = encode(value, name)
        if known is not None and (known.value_hash == found.blob or self._was_only_read(found, value, known, name)):
            return known
        check_loadable(found, value, name)
        if found.size <= inline_bytes:
            inline = base64.b64encode(b"".join(found.parts)).decode("ascii")
            return ArtifactRef(found.blob, found.size, found.name, type_name(value), inline, found.serializers)
        kind, serializers = type_name(value), found.serializers
        if self._compression == "zstd" and (smaller := _compressed(found)) is not None:
            self._write(smaller.blob, smaller.parts, smaller.size)
            content = (found.blob, found.size)
            return ArtifactRef(smaller.blob, smaller.size, "pickle5+zstd", kind, None, serializers, *content)
        self._write(found.blob, found.parts, found.size)
        return ArtifactRef(found.blob, found.size, found.name, kind, None, serializers)

    def _write(self, blob: str, parts: Sequence[Buffer], size: int) -> None:
        """Writes a blob now, or soon."""
        if self._writes is None or size > MOST_BYTES:
            self.save_blob(blob, parts)
            return
        data = b"".join(parts)  # the value may be changed before it is written
        self._writes.add(lambda: self.save_blob(blob, [data]), size)

    def _was_only_read(self, found: Encoded, value: object, known: ArtifactRef, name: str) -> bool:
        """True if a value with different bytes is still the one that an earlier task saved, as loading leaves it."""
        if known.type != type_name(value):
            return False
        if not found.kinds and known.value_size != found.size:
            return False  # of Python's own types, only sets have different bytes after loading
        if found.buffers and self._shapes.get(known.value_hash) == found.shape:
            return False  # an array with different numbers
        try:
            fresh = self.load(known, name)
        except ArtifactError:
            return False
        return is_unchanged(found, value, fresh)

    def is_same(self, value: object, ref: ArtifactRef, name: str) -> bool:
        """True if a value is the saved one; the order of a set doesn't matter.

        Raises:
            ArtifactError: It can't be pickled.
        """
        found = encode(value, name)
        return found.blob == ref.value_hash or self._was_only_read(found, value, ref, name)

    def was_only_read(self, ref: ArtifactRef, before: ArtifactRef, name: str) -> bool:
        """True if a saved value differs from an earlier one only by what reading it has cached.

        Args:
            ref: The value.
            before: The earlier value.
            name: The artifact's name.
        """
        if ref.type != before.type:
            return False
        try:
            value, fresh = self.load(ref, name), self.load(before, name)
            return is_unchanged(encode(value, name), value, fresh) or differs_by_caches(value, fresh)
        except ArtifactError:
            return False

    def has_young(self, blob: str, size: int) -> bool:
        """True if a blob exists in full, and is so young that ``gc`` leaves it alone.

        Args:
            blob: The sha256 of its content.
            size: Its size in bytes.
        """
        age = self._store.age(blob_key(self._flow, blob), size)
        return age is not None and age < REUSED_SECONDS

    def save_blob(self, blob: str, parts: Sequence[Buffer]) -> None:
        """Writes content under its sha256, unless it exists in full, and is so young that ``gc`` leaves it alone.

        A power cut may have truncated it. ``storage/condemned.py`` describes how it is kept from ``gc``.
        """
        key, size = blob_key(self._flow, blob), sum(memoryview(part).nbytes for part in parts)
        if self.has_young(blob, size):
            return
        self._store.put(key, parts)
        if outlasted(self._store, self._flow, blob) and self._store.age(key, size) is None:
            self._store.put(key, parts)

    def load(self, ref: ArtifactRef, name: str, find: Find | None = None) -> Any:
        """The value, verified before it is unpickled.

        Args:
            ref: The reference to the value.
            name: The artifact's name, for errors.
            find: Looks up classes and functions; None for Python's own lookup.

        Raises:
            ArtifactError: The content is damaged or missing, or needs code that is not available.
        """
        data = self._content(ref, name) if ref.inline is None else _inline(ref.inline)
        self._verify(data, ref, name)
        try:
            parts = stored(data, ref.encoding, ref.value_size)
            value = parts.load(find)
        except ArtifactError as error:
            what = f"the artifact {name!r} (a {ref.type}) can't be loaded: {error.summary}"
            raise _of_type(ref, ArtifactError(what, cause=error.cause, advice=error.advice)) from error
        except Exception as error:  # unpickling runs the code of the value's classes, which may raise anything
            what = f"the artifact {name!r} (a {ref.type}) can't be loaded: {type(error).__name__}: {error}"
            cause = "Code or a package that it needs is missing here, or has a different version."
            advice = "Import the flow's module, and install the packages of the step that set it."
            raise _of_type(ref, ArtifactError(what, cause=cause, advice=advice)) from error
        if parts.buffers:
            self._shapes[ref.value_hash] = parts.shape
        return value

    def _content(self, ref: ArtifactRef, name: str) -> Buffer:
        """The bytes of a value; those of the last few small ones are cached."""
        if ref.size > _KEPT_BLOB_BYTES:
            return self.load_blob(ref.blob, name)
        if ref.blob not in self._kept:
            data = bytes(self.load_blob(ref.blob, name))
            while len(self._kept) >= _KEPT_BLOBS:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[ref.blob] = data
            return data
        return self._kept[ref.blob]

    def load_blob(self, blob: str, name: str) -> Buffer:
        """The bytes of a blob, not verified.

        Raises:
            ArtifactError: There is no such blob.
        """
        try:
            return get_written(self._store, blob_key(self._flow, blob))
        except ObjectNotFoundError as error:
            raise ArtifactError(
                f"the content of {name!r} is missing: there is no blob {blob} in {self._store.url}.",
                cause="It was deleted after the run.",
            ) from error

    def _verify(self, data: Buffer, ref: ArtifactRef, name: str) -> None:
        found = sha256([data])
        if found != ref.blob:
            # An existing blob is not written again, so the damaged one has to be deleted first.
            first = "" if ref.inline is not None else f"Delete {blob_key(self._flow, ref.blob)} there. "
            raise ArtifactError(
                f"the content of {name!r} in {self._store.url} is damaged: its sha256 is {found}, "
                f"but {ref.blob} was saved.",
                cause="Something changed the store. The content was not unpickled.",
                advice=f"{first}Rerun the step that set it.",
            )


def _compressed(found: Encoded) -> Compressed | None:
    """The value if compression makes it much smaller."""
    if found.size < LEAST_COMPRESSED_BYTES:
        return None
    from k8sflow.storage.compression import compressed  # noqa: PLC0415  few values are large enough

    return compressed(found.stream, found.buffers)


def _of_type(ref: ArtifactRef, error: ArtifactError) -> ArtifactError:
    error.of_type = ref.type
    return error


def blob_key(flow: str, blob: str) -> str:
    """The key of a blob in the store."""
    return f"{flow}/blobs/{blob[:2]}/{blob}"


def _inline(text: str) -> bytes:
    """The bytes of an inline value; empty if it is damaged, which the check of the hash reports."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
