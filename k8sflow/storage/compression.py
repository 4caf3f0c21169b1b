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
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple

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
    contents: list[Sequence[Buffer]] = [stream, *([buffer] for buffer in buffers)]
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
            pieces.append(frames or content)
    return _joined(sections, pieces)


def _gains(content: Sequence[Buffer], length: int, zstd: Zstd) -> bool:
    """True if slices of a part, taken from all over it, become small enough."""
    if length < _LEAST_BYTES:
        return False
    pause = max(_PROBE_BYTES, (length - _PROBE_BYTES) // (_PROBES - 1))
    probes = [_slice(content, start, _PROBE_BYTES) for start in range(0, length, pause)][:_PROBES]
    return sum(len(zstd.compress(probe)) for probe in probes) <= _WORTH * sum(map(len, probes))


def _frame(content: Sequence[Buffer], zstd: Zstd, start: int) -> bytes:
    return zstd.compress(_slice(content, start, _CHUNK_BYTES))


def _slice(content: Sequence[Buffer], start: int, length: int) -> bytes:
    """Some bytes of joined pieces, which are not joined, since they may be as large as the value."""
    found = []
    for piece in content:
        if len(piece) - start > 0 and length > 0:
            found.append(memoryview(piece)[max(start, 0) : max(start, 0) + length])
            length -= len(found[-1])
        start = max(0, start - len(piece))
        if length == 0:
            break
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


def decompressed(data: Buffer, most: int | None = None) -> tuple[memoryview, list[memoryview]]:
    """The stream and the buffers; those that were not compressed refer to the data.

    Args:
        data: All pieces, joined.
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
    parts = []
    for section in sections:
        if section.frames:
            end = position + sum(section.frames)
            _check(end <= len(view))
            parts.append(_content(section, view[position:end], chunk_bytes))
        else:
            position += -position % _ALIGNMENT
            end = position + section.length
            _check(end <= len(view))
            parts.append(view[position:end])
        position = end
    _check(position == len(view))
    return parts[0], parts[1:]


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


def _content(section: _Section, data: memoryview, chunk_bytes: int) -> memoryview:
    """A section that was compressed."""
    zstd = needed()
    target = bytearray(section.length)

    def fill(index: int, start: int, length: int) -> bool:
        into = index * chunk_bytes
        frame = bytes(data[start : start + length])
        return zstd.decompress_into(frame, target, into, min(chunk_bytes, section.length - into))

    starts = list(accumulate(section.frames[:-1], initial=0))
    arguments = zip(range(len(starts)), starts, section.frames, strict=True)
    if len(starts) == 1:
        _check(fill(*next(arguments)))
    else:
        with ThreadPoolExecutor(min(available_cores(), _MOST_THREADS)) as pool:
            _check(all(pool.map(lambda each: fill(*each), arguments)))
    return memoryview(target)


def _check(is_right: bool) -> None:  # noqa: FBT001  an assertion that stays
    if not is_right:
        raise _damaged()


def _damaged() -> ArtifactError:
    return ArtifactError(f"its encoding ({ENCODING}) is damaged, although its sha256 is right.")
