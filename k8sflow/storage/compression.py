"""The encoding ``pickle5+zstd``: the stream and the buffers of a value, each compressed if that makes it much smaller.

Some slices of each are compressed first, as a probe. A part for which that gains little is stored as it is in memory,
at a multiple of 64 bytes, and can be mapped; random numbers and images are like that. Others are compressed in chunks,
by several threads. A value without a part that gains is stored without this encoding.

    header | sections | lengths of the frames | part, part, …

The blob's name is the sha256 of these bytes, so it is verified before anything is decompressed. The reference to the
value has the sha256 of the value before compression too, by which an unchanged value is recognised.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from k8sflow.errors import ArtifactError
from k8sflow.parallel.limits import available_cores
from k8sflow.storage.objects import Buffer
from k8sflow.storage.zstd import Zstd, available, needed

ENCODING = "pickle5+zstd"
# Parts below this length are not compressed, nor are values (``LEAST_COMPRESSED_BYTES`` in storage/artifacts.py).
_LEAST_BYTES = 1 << 16
_PROBES = 5
_PROBE_BYTES = 1 << 15
# A part is compressed if its probes become smaller than this fraction.
_WORTH = 0.6
_CHUNK_BYTES = 4 << 20
_MOST_THREADS = 8
_ALIGNMENT = 64
_MAGIC = b"k8sflowz"
_HEADER = struct.Struct("<8sIQ")  # magic, number of sections, length of a chunk
_SECTION = struct.Struct("<QI")  # length before compression, number of frames: 0 if it is stored as it is
_FRAME = struct.Struct("<Q")


class _Section(NamedTuple):
    length: int
    frames: tuple[int, ...]  # their lengths


@dataclass(frozen=True)
class Compressed:
    """A compressed value.

    Args:
        parts: The pieces, in the order in which they are written.
        blob: sha256 of all pieces.
        size: The length of all pieces in bytes.
    """

    parts: Sequence[Buffer]
    blob: str
    size: int


def compressed(stream: Sequence[Buffer], buffers: Sequence[memoryview]) -> Compressed | None:
    """The compressed value, or None if no part gains by it, or this process has no zstd.

    Args:
        stream: The pieces of the pickle stream.
        buffers: The buffers to which the stream refers.
    """
    lengths = [sum(map(len, stream)), *map(len, buffers)]
    if max(lengths) < _LEAST_BYTES or (zstd := available()) is None:
        return None
    contents = [_Content(stream), *(_Content([buffer]) for buffer in buffers)]
    gains = [_gains(content, length, zstd) for content, length in zip(contents, lengths, strict=True)]
    if not any(gains):
        return None
    sections: list[_Section] = []
    pieces: list[Sequence[Buffer]] = []
    with ThreadPoolExecutor(min(available_cores(), _MOST_THREADS)) as pool:
        for content, length, gain in zip(contents, lengths, gains, strict=True):
            starts = range(0, length, _CHUNK_BYTES) if gain else range(0)
            compress = partial(_frame, content, zstd)
            frames = list(pool.map(compress, starts))
            sections.append(_Section(length, tuple(map(len, frames))))
            pieces.append(frames or content.pieces)
    return _joined(sections, pieces)


def _gains(content: _Content, length: int, zstd: Zstd) -> bool:
    """True if slices of a part, taken from all over it, become small enough."""
    if length < _LEAST_BYTES:
        return False
    pause = max(_PROBE_BYTES, (length - _PROBE_BYTES) // (_PROBES - 1))
    probes = [content.slice(start, _PROBE_BYTES) for start in range(0, length, pause)][:_PROBES]
    return sum(len(zstd.compress(probe)) for probe in probes) <= _WORTH * sum(map(len, probes))


def _frame(content: _Content, zstd: Zstd, start: int) -> bytes:
    return zstd.compress(content.slice(start, _CHUNK_BYTES))


class _Content:
    """Joined pieces, which stay where they are, since they may be as large as the value.

    Args:
        pieces: The pieces.
    """

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        self.pieces = pieces
        self._starts = list(accumulate(map(len, pieces[:-1]), initial=0))

    def slice(self, start: int, length: int) -> bytes:
        """Some of the bytes."""
        index = bisect_right(self._starts, start) - 1
        inside = start - self._starts[index]
        found = []
        while length > 0 and index < len(self.pieces):
            found.append(memoryview(self.pieces[index])[inside : inside + length])
            length -= len(found[-1])
            index, inside = index + 1, 0
        return b"".join(found)


def _joined(sections: Sequence[_Section], pieces: Sequence[Sequence[Buffer]]) -> Compressed:
    header = _HEADER.pack(_MAGIC, len(sections), _CHUNK_BYTES)
    header += b"".join(_SECTION.pack(section.length, len(section.frames)) for section in sections)
    header += b"".join(_FRAME.pack(length) for section in sections for length in section.frames)
    parts: list[Buffer] = [header]
    size = len(header)
    for section, content in zip(sections, pieces, strict=True):
        if not section.frames and (padding := -size % _ALIGNMENT):
            parts.append(bytes(padding))
            size += padding
        parts += content
        size += sum(map(len, content))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return Compressed(parts, digest.hexdigest(), size)


def decompressed(data: Buffer, most: int | None = None) -> tuple[memoryview | Stream, list[memoryview]]:
    """The stream and the buffers; those that were not compressed refer to the data.

    Args:
        data: All pieces, joined. Memory of its own (``mmap``) is given back as it is decompressed.
        most: The length before compression at most, if it is known: no more memory is allocated.

    Raises:
        ArtifactError: The data is damaged, or this process has no zstd.
    """
    view = memoryview(data).cast("B")
    try:
        sections, position, chunk_bytes = _sections(view)
    except struct.error as error:
        raise _damaged() from error
    _check(most is None or sum(section.length for section in sections) <= most)
    parts: list[_Frames | memoryview] = []
    for section in sections:
        if section.frames:
            end = position + sum(section.frames)
            _check(end <= len(view))
            parts.append(_Frames(section, view, position, chunk_bytes))
        else:
            position += -position % _ALIGNMENT
            end = position + section.length
            _check(end <= len(view))
            parts.append(view[position:end])
        position = end
    _check(position == len(view))
    buffers = [part.content() if isinstance(part, _Frames) else part for part in parts[1:]]
    return Stream(parts[0]) if isinstance(parts[0], _Frames) else parts[0], buffers


def _sections(view: memoryview) -> tuple[list[_Section], int, int]:
    """The sections, the position behind them, and the length of a chunk."""
    magic, count, chunk_bytes = _HEADER.unpack_from(view)
    position = _HEADER.size
    _check(magic == _MAGIC and count > 0 and chunk_bytes > 0 and count * _SECTION.size <= len(view) - position)
    found = [_SECTION.unpack_from(view, position + index * _SECTION.size) for index in range(count)]
    position += count * _SECTION.size
    sections = []
    for length, frames in found:
        end = position + frames * _FRAME.size
        _check(end <= len(view) and (frames == 0 or frames == -(-length // chunk_bytes)))
        lengths = tuple(size for (size,) in _FRAME.iter_unpack(view[position:end]))
        sections.append(_Section(length, lengths))
        position = end
    return sections, position, chunk_bytes


class _Frames:
    """A section that was compressed."""

    def __init__(self, section: _Section, view: memoryview, position: int, chunk_bytes: int) -> None:
        self._section = section
        self._view = view
        self._starts = list(accumulate(section.frames[:-1], initial=position))
        self._zstd = needed()
        self.length = section.length
        self.chunk_bytes = chunk_bytes

    def content(self) -> memoryview:
        """All of it, in memory that is private to this process, and is used as it is filled."""
        target = memoryview(mmap.mmap(-1, self.length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self.read_into(target, 0)
        return target

    def read_into(self, target: memoryview, first: int) -> None:
        """Fills a buffer, several chunks at a time.

        Args:
            target: The buffer, which ends where a chunk does.
            first: The number of the first chunk.

        Raises:
            ArtifactError: A frame is damaged.
        """
        count = -(-len(target) // self.chunk_bytes)
        indices = range(first, first + count)
        if count == 1:
            self._fill(target, first, first)
            return
        with ThreadPoolExecutor(min(available_cores(), _MOST_THREADS)) as pool:
            list(pool.map(partial(self._fill, target, first), indices))

    def _fill(self, target: memoryview, first: int, index: int) -> None:
        start, length = self._starts[index], self._section.frames[index]
        frame = bytes(self._view[start : start + length])
        into = (index - first) * self.chunk_bytes
        wanted = min(self.chunk_bytes, self.length - index * self.chunk_bytes)
        _check(self._zstd.decompress_into(frame, target, into, wanted))
        _give_back(self._view, start, start + length)


def _give_back(view: memoryview, start: int, end: int) -> None:
    """Frees memory that is not needed any more, if it is that of a mapping."""
    memory = view.obj
    first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if isinstance(memory, mmap.mmap) and len(memory) == len(view) and last > first and hasattr(memory, "madvise"):
        memory.madvise(mmap.MADV_DONTNEED, first, last - first)


class Stream:
    """A compressed pickle stream as a file, for ``pickle.Unpickler``: large bytes are decompressed in place."""

    def __init__(self, frames: _Frames) -> None:
        self._frames = frames
        self._chunk = memoryview(b"")  # the one that was read last
        self._position = 0  # in it
        self._next = 0
        self.checksum = 0  # of the chunks that were read

    def readinto(self, target: Any) -> int:
        """Fills a buffer, and returns how many bytes there were."""
        view = memoryview(target).cast("B")
        done = self._from_chunk(view)
        size, rest = self._frames.chunk_bytes, max(0, self._frames.length - self._next * self._frames.chunk_bytes)
        wanted = min(len(view) - done, rest)
        whole = wanted if wanted == rest else wanted // size * size
        if whole > 0:
            self._read(view[done : done + whole])
            done += whole
        if done < len(view) and self._next * size < self._frames.length:
            self._chunk, self._position = memoryview(bytearray(min(size, rest - whole))), 0
            self._read(self._chunk)
            done += self._from_chunk(view[done:])
        return done

    def _from_chunk(self, target: memoryview) -> int:
        found = self._chunk[self._position : self._position + len(target)]
        target[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _read(self, target: memoryview) -> None:
        self._frames.read_into(target, self._next)
        self._next += -(-len(target) // self._frames.chunk_bytes)
        self.checksum = zlib.crc32(target, self.checksum)

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all of them for -1."""
        unread = max(0, self._frames.length - self._next * self._frames.chunk_bytes)
        rest = len(self._chunk) - self._position + unread
        target = bytearray(max(0, rest if size < 0 else min(size, rest)))
        self.readinto(target)
        return bytes(target)

    def readline(self) -> bytes:
        """The bytes up to the next newline, for the opcodes of older protocols."""
        found = bytearray()
        while byte := self.read(1):
            found += byte
            if byte == b"\n":
                break
        return bytes(found)


def _check(is_right: bool) -> None:  # noqa: FBT001  an assertion that stays
    if not is_right:
        raise _damaged()


def _damaged() -> ArtifactError:
    return ArtifactError(f"its encoding ({ENCODING}) is damaged, although its sha256 is right.")
