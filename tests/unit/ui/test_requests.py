"""The requests that following a run takes in a store whose objects are not files, as a bucket is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8sflow.flow.graph import Graph
from k8sflow.storage.clones import mark_complete
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.objects import Buffer
from k8sflow.ui.library import Library
from k8sflow.ui.progress import RunReader
from tests.pages import Made


class CountingStore(MemoryStore):
    """A store that notes which requests a bucket would get."""

    is_shared = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, key: str) -> Buffer:
        self.asked.append(f"get {key}")
        return super().get(key)

    def tail(self, key: str, start: int, most: int | None = None) -> bytes:
        self.asked.append(f"tail {key}")
        return super().tail(key, start, most)

    def list_keys(self, prefix: str) -> Iterator[str]:
        self.asked.append(f"list {prefix}")
        return super().list_keys(prefix)


def polled(reader: RunReader, store: CountingStore) -> list[str]:
    """The requests of one look."""
    store.asked.clear()
    reader._read_at = float("-inf")
    reader.poll()
    assert reader.error == ""
    return list(store.asked)


def test_running_tasks_are_looked_at_by_a_listing(graph: Graph):
    """One for the step, however many run; the time of their first output is read once, on whichever stream it is."""
    store = CountingStore()
    made = Made(store, graph)
    made.task("start", width=9)
    for number in range(9):
        with_output = made.records.open_log("work", str(number), 0, "stderr" if number % 2 else "stdout")
        with_output.write(b"hello\n")
        with_output.close()
    reader = Library([store]).reader("F", "r1")
    first = polled(reader, store)
    assert sum(request.startswith("tail ") for request in first) == 9
    rows = [row for row in reader.rows() if row.step == "work"]
    assert [row.state for row in rows] == ["running"] * 9
    assert all(row.started is not None for row in rows)
    again = polled(reader, store)
    assert not any("commit.json" in request or request.startswith("tail ") for request in again)
    assert [request for request in again if "tasks/work/" in request].count("list F/runs/r1/tasks/work/") <= 2
    assert not any("list F/runs/r1/tasks/work/1/" in request for request in again)


def test_tasks_without_output_take_no_reads(graph: Graph):
    store = CountingStore()
    made = Made(store, graph)
    made.records.write_start("start", "0", 0)
    reader = Library([store]).reader("F", "r1")
    for _ in range(2):
        assert not any(request.startswith("tail ") for request in polled(reader, store))
    assert [(row.state, row.started) for row in reader.rows()] == [("running", None)]


def test_the_record_of_a_run_that_runs_is_read_once(graph: Graph, monkeypatch: pytest.MonkeyPatch):
    """The list has the rest from listings, and from the end that it looks for."""
    monkeypatch.setattr(Library, "poll_seconds", 0.0)
    store = CountingStore()
    made = Made(store, graph, "20260101-000000-000000")
    library = Library([store])
    record = f"get {made.records.prefix}/run.json"
    for count in (1, 0, 0):
        store.asked.clear()
        assert [row.status for row in library.rows()] == ["running"]
        assert store.asked.count(record) == count
    made.ends()
    assert [row.status for row in library.rows()] == ["succeeded"]


def test_the_ends_of_clones_are_read_once(graph: Graph):
    """Also where there are none."""
    store = CountingStore()
    made = Made(store, graph, more={"origin_run_id": "r0"})
    reader = Library([store]).reader("F", "r1")
    for _ in range(2):  # they may come
        assert polled(reader, store).count("get F/runs/r1/cloned.json") == 1
    mark_complete(made.records)
    assert polled(reader, store).count("get F/runs/r1/cloned.json") == 1
    assert "get F/runs/r1/cloned.json" not in polled(reader, store)
