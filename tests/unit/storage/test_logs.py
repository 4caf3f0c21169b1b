"""When lines came, and reading on where a log has grown."""

from __future__ import annotations

from k8sflow.storage.logs import Mark, marks, timed_lines
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.run_store import RunStore


def test_a_log_knows_when_its_pieces_came(store: ObjectStore) -> None:
    """To the millisecond; pieces that come close together share a mark."""
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


def test_a_clock_that_is_set_back_is_no_reason_to_lose_a_mark(store: ObjectStore) -> None:
    """The next piece has one of its own."""
    run = RunStore(store, "F", "r1")
    log = run.open_log("start", "0", 0, "stdout")
    log.write(b"a\n", 100.0)
    log.write(b"b\n", 50.0)
    log.close()
    assert run.read_marks("start", "0", 0, "stdout") == [Mark(0, 100.0), Mark(2, 50.0)]


def test_marks_that_are_cut_off_or_damaged_are_left_out() -> None:
    """As after a power cut."""
    assert marks(b"0 1000\nx y\n5 2000\n9 30") == [Mark(0, 1.0), Mark(5, 2.0)]
    assert list(timed_lines(b"a\n\nb", [])) == [(None, b"a"), (None, b""), (None, b"b")]
    assert list(timed_lines(b"a\n", [])) == [(None, b"a")]
    assert list(timed_lines(b"", [])) == []


def test_a_log_is_read_on_from_where_it_was_left(store: ObjectStore) -> None:
    """No object, and no more bytes, are nothing new."""
    assert store.tail("F/log", 0) == b""
    store.put("F/log", [b"0123456789"])
    assert store.tail("F/log", 0) == b"0123456789"
    assert store.tail("F/log", 7) == b"789"
    assert store.tail("F/log", 10) == b""
    assert store.tail("F/log", 11) == b""
    store.put("F/empty", [b""])
    assert store.tail("F/empty", 0) == b""
