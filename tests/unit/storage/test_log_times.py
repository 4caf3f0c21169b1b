"""The times of lines, and reading a growing log."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.log_times import Mark, marks, missing_end, scrub, timed_lines
from k8sflow.storage.objects import Buffer, ObjectStore
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.s3_log import S3Log, append_to_parts, read_log


def test_a_log_has_the_times_of_its_writes(store: ObjectStore) -> None:
    """Times are in milliseconds; writes close together share a mark."""
    run = RunStore(store, "F", "r1")
    log = run.open_log("start", "0", 0, "stdout")
    for text, at in ((b"one\n", 10.0), (b"tw", 10.004), (b"o\nthr", 12.5), (b"ee", 12.52)):
        log.write(text, at)
    log.close()
    assert run.read_marks("start", "0", 0, "stdout") == [Mark(0, 10.0), Mark(6, 12.5), Mark(11, 12.52)]
    data = run.read_log("start", "0", 0, "stdout")
    assert data == b"one\ntwo\nthree"
    known = run.read_marks("start", "0", 0, "stdout")
    assert list(timed_lines(data, known)) == [(10.0, b"one"), (10.0, b"two"), (12.5, b"three")]
    assert list(timed_lines(data[8:], known, 8)) == [(12.5, b"three")]


def test_no_mark_is_lost_when_the_clock_is_set_back(store: ObjectStore) -> None:
    """The next write has its own mark."""
    run = RunStore(store, "F", "r1")
    log = run.open_log("start", "0", 0, "stdout")
    log.write(b"a\n", 100.0)
    log.write(b"b\n", 50.0)
    log.close()
    assert run.read_marks("start", "0", 0, "stdout") == [Mark(0, 100.0), Mark(2, 50.0)]


def test_truncated_or_damaged_marks_are_skipped() -> None:
    """A power cut may truncate them."""
    assert marks(b"0 1000\nx y\n5 2000\n9 30") == [Mark(0, 1.0), Mark(5, 2.0)]
    assert list(timed_lines(b"a\n\nb", [])) == [(None, b"a"), (None, b""), (None, b"b")]
    assert list(timed_lines(b"a\n", [])) == [(None, b"a")]
    assert list(timed_lines(b"", [])) == []


def test_a_log_is_read_from_an_offset(store: ObjectStore) -> None:
    """Without an object or more bytes, the result is empty."""
    assert store.tail("F/log", 0) == b""
    store.put("F/log", [b"0123456789"])
    assert store.tail("F/log", 0) == b"0123456789"
    assert store.tail("F/log", 7) == b"789"
    assert store.tail("F/log", 2, 3) == b"234"
    assert store.tail("F/log", 7, 30) == b"789"
    assert store.tail("F/log", 10) == b""
    assert store.tail("F/log", 11) == b""
    store.put("F/empty", [b""])
    assert store.tail("F/empty", 0) == b""


def test_a_log_has_a_limit_and_keeps_its_end(store: ObjectStore) -> None:
    """It says so where the limit is reached, and how much is missing before its end; marks fit what is kept."""
    run = RunStore(store, "F", "r1")
    log = run.open_log("start", "0", 0, "stdout", limit_bytes=1_000_000)
    for number in range(400):
        log.write(b"%09d\n" % number * 1000, float(number))
    log.close()
    data = run.read_log("start", "0", 0, "stdout")
    head, reached, rest = data.partition(b"\n[k8sflow] The limit of this log, 1 MB (setting log_limit_mb), is reached.")
    assert (len(head), bool(reached)) == (1_000_000, True)
    assert rest.endswith(b"000000399\n" * 1000)
    assert b"[k8sflow] 2,934,464 bytes were left out: the log's limit is 1 MB" in rest
    assert log.left_out.startswith("2,934,464 bytes were left out")
    assert all(mark.offset <= len(data) for mark in run.read_marks("start", "0", 0, "stdout"))


def test_a_log_within_its_limit_is_unchanged(store: ObjectStore) -> None:
    run = RunStore(store, "F", "r1")
    log = run.open_log("start", "0", 0, "stdout", limit_bytes=10)
    log.write(b"0123456789")
    log.close()
    assert (run.read_log("start", "0", 0, "stdout"), log.left_out) == (b"0123456789", "")


def test_scrubbing_removes_every_object_of_a_long_log() -> None:
    """Those that readers would no longer look for, too."""
    store = MemoryStore()
    for name in ("stdout", "stdout.1", "stdout.12", "stdout.times", "stdout.times.1", "stderr.1"):
        store.put(f"t/{name}", [b"secret"])
    assert scrub(store, "t/stdout", "ada")
    kept = [key for key in store.list_keys("t/") if b"secret" in bytes(store.get(key))]
    assert kept == ["t/stderr.1", "t/stdout.times.1"]


class _Objects:
    """A store that counts what is written."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written = 0

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self.objects[key] = b"".join(parts)
        self.written += len(self.objects[key])

    def read(self, key: str, start: int, most: int | None) -> bytes:
        return self.objects.get(key, b"")[start : None if most is None else start + most]


def test_a_long_log_in_a_bucket_is_several_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is written about once, only the last is held in memory, and a reader may begin anywhere."""
    monkeypatch.setattr("k8sflow.storage.s3_log.PART_BYTES", 1000)
    store, rng = _Objects(), random.Random(7)
    log, content = S3Log(store, "log"), b""
    for _ in range(300):
        piece = rng.randbytes(rng.randrange(0, 90))
        log.write(piece)
        content += piece
        assert sum(map(len, log._pieces)) < 1000
    log.close()
    assert len(store.objects) == len(content) // 1000 + 1
    assert store.written < 2 * len(content)
    for start in (0, 1, 999, 1000, 1001, 5000, len(content) - 1, len(content), len(content) + 5000):
        assert read_log(store.read, "log", start) == content[start:]
        for most in (1, 999, 1000, 2001, len(content)):
            assert read_log(store.read, "log", start, most) == content[start : start + most]


def test_a_log_that_ends_with_a_full_object_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8sflow.storage.s3_log.PART_BYTES", 4)
    store = _Objects()
    log = S3Log(store, "log")
    log.write(b"01234567")
    log.close()
    assert sorted(store.objects) == ["log", "log.1"]
    assert (read_log(store.read, "log", 0), read_log(store.read, "log", 8), log.missing) == (b"01234567", b"", 0)


def test_held_back_output_is_written_while_the_task_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is killed after an hour without output has all of it in the bucket."""
    now = [0.0]
    monkeypatch.setattr("k8sflow.storage.s3_log.time.monotonic", lambda: now[0])
    store = _Objects()
    log = S3Log(store, "log")
    log.write(b"one ")
    log.write(b"two")
    assert store.objects["log"] == b"one "
    log.flush()
    assert store.objects["log"] == b"one "
    now[0] = 5.0
    log.flush()
    assert (store.objects["log"], log.missing) == (b"one two", 0)


@pytest.mark.parametrize(
    ("stored", "start", "known", "missing"),
    [
        (b"", 0, b"one\ntwo\n", b"one\ntwo\n"),
        (b"two\n", 4, b"one\ntwo\nthree\n", b"three\n"),
        (b"two\n", 4, b"one\ntwo\n", b""),
        (b"two\n", 4004, b"one\ntwo\nthree\n", b"three\n"),  # the beginning was rotated away
        (b"same\n", 10, b"same\n" * 5, b"same\n" * 2),
    ],
)
def test_the_end_of_a_log_that_was_not_stored_is_found(stored: bytes, start: int, known: bytes, missing: bytes) -> None:
    assert missing_end(stored, start, known) == missing


def test_a_gap_is_marked() -> None:
    """The node's log begins after what was stored."""
    assert b"output is missing here" in missing_end(b"one\n", 0, b"nine\n")
    assert missing_end(b"one\n", 0, b"nine\n").endswith(b"nine\n")


def test_the_log_of_a_killed_writer_is_completed(store: ObjectStore) -> None:
    """With a time for what is added; a second completion changes nothing."""
    run = RunStore(store, "F", "r1")
    log = run.open_log("start", "0", 0, "stdout")
    log.write(b"one\n", 1.0)
    log.write(b"two\n", 2.0)
    log.close()
    for _ in range(2):
        run.complete_log("start", "0", 0, "stdout", b"one\ntwo\nthree\n")
        run.complete_log("start", "0", 0, "stderr", b"never stored\n")
    assert run.read_log("start", "0", 0, "stdout") == b"one\ntwo\nthree\n"
    assert run.read_log("start", "0", 0, "stderr") == b"never stored\n"
    assert [mark.offset for mark in run.read_marks("start", "0", 0, "stdout")] == [0, 4, 8]


def test_a_log_of_several_objects_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8sflow.storage.s3_log.PART_BYTES", 10)
    store = _Objects()
    log = S3Log(store, "log")
    log.write(b"0123456789abc")
    log.close()

    def tail(key: str, start: int) -> bytes:
        return read_log(store.read, key, start)

    append_to_parts(store.put, tail, "log", 13, b"defghijklmnopqrst")
    assert tail("log", 0) == b"0123456789abcdefghijklmnopqrst"
    assert sorted(store.objects) == ["log", "log.1", "log.2"]
