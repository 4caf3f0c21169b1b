"""The times of lines, and reading a growing log."""

from __future__ import annotations

from k8sflow.storage.logs import Mark, marks, timed_lines
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.run_store import RunStore


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
    assert store.tail("F/log", 10) == b""
    assert store.tail("F/log", 11) == b""
    store.put("F/empty", [b""])
    assert store.tail("F/empty", 0) == b""
