"""Compression of what gains by it; the rest stays as it is in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k8sflow.errors import ArtifactError, ConfigurationError
from k8sflow.storage import compression, zstd
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore, blob_key
from k8sflow.storage.compression import Stream, compressed, decompressed
from k8sflow.storage.encoding import encode, stored
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.s3 import S3Store
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import in_python

IMPLEMENTATIONS = list(zstd.implementations())
SMALL = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
RANDOM = np.random.default_rng(0)
# Parts that gain, parts that don't, and short ones.
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(0, 3000)),
    st.builds(RANDOM.bytes, st.integers(0, 3000)),
)


@pytest.fixture
def saved(folder_store: FolderStore) -> ArtifactStore:
    return ArtifactStore(folder_store, "F", "zstd")


@pytest.fixture
def _small_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_LEAST_BYTES", 1)
    monkeypatch.setattr(compression, "_PROBE_BYTES", 100)
    monkeypatch.setattr(compression, "_CHUNK_BYTES", 256)


@pytest.fixture(params=IMPLEMENTATIONS, ids=[each.origin for each in IMPLEMENTATIONS])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> zstd.Zstd:
    """Each zstd of this machine; tests/requirements have a module, so there is at least one."""
    monkeypatch.setattr(compression, "available", lambda: request.param)
    monkeypatch.setattr(compression, "needed", lambda: request.param)
    found: zstd.Zstd = request.param
    return found


@pytest.mark.usefixtures("_small_parts_too", "implementation")
@SMALL
@given(st.lists(CONTENTS, min_size=1, max_size=3), st.lists(CONTENTS, max_size=5))
def test_any_parts_come_back(stream: list[bytes], buffers: list[bytes]) -> None:
    found = compressed(stream, [memoryview(buffer) for buffer in buffers])
    if found is None:
        return
    data = b"".join(found.parts)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (found.size, found.blob)

    back, pieces = decompressed(data)

    assert _all(back) == b"".join(stream)
    assert list(map(bytes, pieces)) == buffers


def _all(stream: memoryview | Stream) -> bytes:
    return stream.read() if isinstance(stream, Stream) else bytes(stream)


@pytest.mark.usefixtures("_small_parts_too")
@SMALL
@given(st.integers(0, 3000), st.lists(st.tuples(st.booleans(), st.integers(0, 900)), max_size=20))
def test_a_stream_is_read_in_pieces_of_any_size(length: int, reads: list[tuple[bool, int]]) -> None:
    """As pickle does; both the whole chunks and the rest of one arrive where they belong."""
    content = b"".join(bytes([number % 7]) * 9 for number in range(1000))[: length + 400]
    found = compressed([content], [])
    assert found is not None
    stream, _ = decompressed(b"".join(found.parts))
    assert isinstance(stream, Stream)
    position = 0
    for is_into, size in reads:
        if is_into:
            target = bytearray(size)
            piece = bytes(target[: stream.readinto(target)]) if size else b""
        else:
            piece = stream.read(size)
        assert piece == content[position : position + size]
        position += len(piece)
    assert stream.read() == content[position:]
    assert stream.checksum == zlib.crc32(content)


def test_every_zstd_reads_what_the_others_write() -> None:
    for content in (b"", b"a", b"abc" * 100_000, os.urandom(100_000)):
        for writer in IMPLEMENTATIONS:
            for reader in IMPLEMENTATIONS:
                target = bytearray(len(content) + 2)
                assert reader.decompress_into(writer.compress(content), target, 1, len(content))
                assert target == b"\0" + content + b"\0"


@pytest.mark.usefixtures("_small_parts_too", "implementation")
@SMALL
@given(st.data(), st.lists(CONTENTS, max_size=5))
def test_a_damaged_encoding_never_crashes(data: st.DataObject, buffers: list[bytes]) -> None:
    """The check of the hash comes first; this is the second line of defence."""
    found = compressed([b"stream" * 100], [memoryview(buffer) for buffer in buffers])
    assert found is not None
    damaged = bytearray(b"".join(found.parts))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
        with pytest.raises(ArtifactError, match="is damaged"):
            _all(decompressed(damaged)[0])
        return
    lengths = compression._HEADER.size + compression._SECTION.size * (1 + len(buffers))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    if compression._HEADER.size <= position < lengths and len(damaged) - position > 8:
        struct.pack_into("<H", damaged, position, 0)  # a length of exabytes would be a MemoryError
    with contextlib.suppress(ArtifactError, MemoryError, OverflowError):
        _all(decompressed(damaged)[0])


def test_a_frame_with_another_length_is_damaged(implementation: zstd.Zstd) -> None:
    frame, target = implementation.compress(b"abc" * 1000), bytearray(5000)

    assert not implementation.decompress_into(frame, target, 0, 2999)
    assert not implementation.decompress_into(frame, target, 0, 3001)
    assert not implementation.decompress_into(frame[:-1], target, 0, 3000)
    assert not implementation.decompress_into(frame + b"x", target, 0, 3000)
    assert implementation.decompress_into(frame, target, 0, 3000)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damage_is_found_before_anything_is_decompressed(
    saved: ArtifactStore, folder_store: FolderStore, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = saved.save(np.zeros(1 << 17), "a")
    key = blob_key("F", ref.blob)
    content = bytearray(folder_store.get(key))
    if damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        del content[-1]
    folder_store.put(key, [content])
    monkeypatch.setattr(compression, "decompressed", None)

    with pytest.raises(ArtifactError, match=r"the content of 'a' in .* is damaged"):
        saved.load(ref, "a")


def test_numbers_that_repeat_are_compressed_and_random_ones_are_not(saved: ArtifactStore) -> None:
    counts, random = saved.save(np.arange(1 << 17), "a"), saved.save(RANDOM.random(1 << 17), "b")

    assert (counts.encoding, random.encoding) == ("pickle5+zstd", "pickle5")
    assert counts.size < (1 << 17) * 8 / 2
    assert (saved.load(counts, "a") == np.arange(1 << 17)).all()


def test_a_long_text_is_compressed(saved: ArtifactStore) -> None:
    """It is in the stream itself."""
    value = [{"name": f"user {number}", "age": number % 90} for number in range(50_000)]
    ref = saved.save(value, "a")

    assert ref.encoding == "pickle5+zstd"
    assert ref.size < ref.content_size / 2
    assert saved.load(ref, "a") == value


def _owner(array: Any) -> Any:
    """The object whose memory an array uses."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj


def test_what_is_not_compressed_is_mapped(saved: ArtifactStore) -> None:
    """Beside a column that is: the reader's memory is the file's."""
    value = {"random": RANDOM.random(1 << 19), "counts": np.arange(1 << 19)}
    back = saved.load(saved.save(value, "a"), "a")

    assert [type(_owner(array)).__name__ for array in back.values()] == ["mmap", "mmap"]
    assert back["random"].ctypes.data % 64 == 0
    back["random"][0] = back["counts"][0] = 5  # both are writable


def test_an_unchanged_value_is_not_compressed_again(saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": np.arange(1 << 17), "b": ["one", "two"] * (1 << 16)})
    ref = saved.save(frame, "a")
    back = saved.load(ref, "a")
    monkeypatch.setattr(compression, "compressed", None)

    assert saved.save(back, "a", ref) is ref
    assert saved.is_same(back, ref, "a")


def test_a_changed_number_is_noticed(saved: ArtifactStore) -> None:
    ref = saved.save(np.arange(1 << 17), "a")
    back = saved.load(ref, "a")
    back[5] = 0

    changed = saved.save(back, "a", ref)
    assert changed.value_hash != ref.value_hash
    assert saved.load(changed, "a")[5] == 0


def test_the_same_value_is_stored_once(saved: ArtifactStore, folder_store: FolderStore) -> None:
    first, second = saved.save(np.arange(1 << 17), "a"), saved.save(np.arange(1 << 17), "b")

    assert first == second
    assert len(list(folder_store.list_keys("F/blobs"))) == 1


def test_the_reference_says_what_is_compressed(saved: ArtifactStore, folder_store: FolderStore) -> None:
    value = np.arange(1 << 17)
    ref = saved.save(value, "a")
    document = ref.to_document()

    found = encode(value, "a")
    assert document["encoding"] == f"pickle5+zstd;content={found.blob};content_size={found.size}"
    assert hashlib.sha256(folder_store.get(blob_key("F", ref.blob))).hexdigest() == document["blob"]
    assert ArtifactRef.from_document(document) == ref


def test_nothing_is_compressed_by_default(folder_store: FolderStore) -> None:
    assert ArtifactStore(folder_store, "F").save(np.arange(1 << 17), "a").encoding == "pickle5"


def test_older_versions_ask_for_an_upgrade(saved: ArtifactStore) -> None:
    """They know five keys, and two encodings."""
    values = {
        "zstd": np.arange(1 << 17),
        "strings": np.array(["one", "two"] * 1000, dtype=object),
        "both": np.array(["one", "two"] * (1 << 17), dtype=object),
    }
    for name, value in values.items():
        ref = saved.save(value, name)
        document = ref.to_document()
        assert document.keys() <= {"blob", "size", "encoding", "type", "inline"}
        assert document["encoding"] not in {"pickle", "pickle5"}
        assert ArtifactRef.from_document(document) == ref
        assert (saved.load(ArtifactRef.from_document(document), name) == value).all()


@pytest.mark.parametrize(
    "encoding", ["pickle6", "pickle5;lengths=3", "pickle5+zstd;content_size=x", "pickle5+lz4;content_size=9", "pickle;"]
)
def test_an_encoding_of_a_newer_version_is_an_error(saved: ArtifactStore, encoding: str) -> None:
    document = {**saved.save(1, "a").to_document(), "encoding": encoding}
    ref = ArtifactRef.from_document(document)
    assert ref.to_document()["encoding"] == encoding  # resume copies it
    with pytest.raises(ArtifactError, match=r"the encoding .* is unknown") as error:
        saved.load(ref, "a")
    assert "upgrade" in error.value.advice


def test_values_of_older_versions_are_read(saved: ArtifactStore) -> None:
    """As they were before there was compression; a step that reads one doesn't write it again."""
    value = np.arange(1 << 17)
    found = encode(value, "a")
    saved.save_blob(found.blob, found.parts)
    document = {"blob": found.blob, "size": found.size, "encoding": "pickle5", "type": "numpy.ndarray"}
    ref = ArtifactRef.from_document(document)

    back = saved.load(ref, "a")
    assert (back == value).all()
    assert saved.save(back, "a", ref) is ref


def test_without_zstd_saving_fails_before_it_begins_and_a_reader_hears_what_to_install(
    saved: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = saved.save(np.arange(1 << 17), "a")
    zstd.available.cache_clear()
    monkeypatch.setattr(zstd, "_MODULES", ())
    monkeypatch.setattr(zstd, "_LIBRARIES", ("libnone.so",))
    try:
        with pytest.raises(ConfigurationError, match="the setting compression is zstd, which this Python") as missing:
            zstd.check_installed()
        assert "pip install backports.zstd" in missing.value.advice
        with pytest.raises(ArtifactError, match=r"'a' .* can't be loaded: it is compressed by zstd") as error:
            saved.load(ref, "a")
        assert "pip install backports.zstd" in error.value.advice
    finally:
        zstd.available.cache_clear()


def test_an_encoding_says_what_it_is() -> None:
    found = encode(np.arange(1 << 17), "a")
    smaller = compressed(found.stream, found.buffers)
    assert smaller is not None

    back = stored(bytearray(b"".join(smaller.parts)), compression.ENCODING)
    assert back.shape == found.shape
    assert (back.load() == np.arange(1 << 17)).all()


@pytest.mark.parametrize("module", ["_ctypes", "backports.zstd"])
def test_python_may_lack_a_module(module: str) -> None:
    """Some builds of Python have no ctypes."""
    source = f"""
        import sys
        sys.modules[{module!r}] = None
        from k8sflow.storage import zstd
        print([each.origin for each in zstd.implementations()])
    """
    done = in_python(source)
    assert done.returncode == 0, done.stderr
    assert ("libzstd" if module == "_ctypes" else "backports") not in done.stdout


def test_a_module_of_the_flow_named_like_pythons_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compression.py").write_text("raise ValueError('ran')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = in_python("from k8sflow.storage import zstd\nprint([each.origin for each in zstd.implementations()])")
    assert done.returncode == 0, done.stderr


def test_a_small_blob_that_claims_to_be_large_is_damaged(saved: ArtifactStore, folder_store: FolderStore) -> None:
    """No memory is allocated for what it claims."""
    ref = saved.save(np.zeros(1 << 17), "a")
    data = bytearray(folder_store.get(blob_key("F", ref.blob)))
    header, section = compression._HEADER, compression._SECTION
    magic, count, _ = header.unpack_from(data)
    header.pack_into(data, 0, magic, count, 1 << 50)
    section.pack_into(data, header.size + section.size, 1 << 50, 1)
    blob = hashlib.sha256(data).hexdigest()
    saved.save_blob(blob, [bytes(data)])
    with pytest.raises(ArtifactError, match="is damaged"):
        saved.load(dataclasses.replace(ref, blob=blob, size=len(data)), "a")


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 20), st.integers(0, 20))
def test_a_slice_of_pieces_is_that_of_the_joined_pieces(pieces: list[bytes], start: int, length: int) -> None:
    assert compression._Content(pieces).slice(start, length) == b"".join(pieces)[start : start + length]


MEASURED = """
    import re
    import sys
    from pathlib import Path

    import numpy as np

    from k8sflow.storage import compression
    from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
    from k8sflow.storage.folder import FolderStore
    from k8sflow.storage.open_store import open_store

    def kilobytes(name):
        return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    command, kind, url, endpoint, encoding, blob, size = sys.argv[1:]
    store = ArtifactStore(open_store(url, endpoint=endpoint, region="us-east-1"), "F", "zstd")
    store.store.exists("x")
    numbers = np.random.default_rng(0).integers(0, 16, 128 << 20 if command == "save" else 1 << 17, dtype=np.uint8)
    value = numbers if kind == "array" else numbers.tobytes()
    if command == "save":
        print(*store.save(value, "a").to_document().values())
    else:
        store.load(store.save(value, "small"), "small")  # imports
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        loaded = store.load(
            ArtifactRef.from_document({"blob": blob, "size": int(size), "encoding": encoding, "type": "t"}), "a"
        )
        print(kilobytes("VmHWM") - before, len(loaded))
"""


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["array", "bytes"])
def test_loading_from_a_bucket_takes_the_memory_of_the_value(s3_store: S3Store, s3_server: S3Server, kind: str) -> None:
    """The compressed bytes, here half of it, are given back while they are decompressed."""
    place = (kind, s3_store.url, s3_server.endpoint)
    saved = in_python(MEASURED, "save", *place, "", "", "", **s3server.KEYS, **s3server.NO_FILES)
    assert saved.returncode == 0, saved.stderr
    blob, size, encoding, _ = saved.stdout.split()
    assert encoding.startswith("pickle5+zstd;")
    loaded = in_python(MEASURED, "load", *place, encoding, blob, size, **s3server.KEYS, **s3server.NO_FILES)
    assert loaded.returncode == 0, loaded.stderr
    kilobytes, length = map(int, loaded.stdout.split())
    assert length == 128 << 20
    assert kilobytes < (128 + 64) << 10
