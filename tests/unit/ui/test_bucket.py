"""A run in a bucket, followed through the server: how soon a change is seen, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from k8sflow.flow.graph import Graph
from k8sflow.ui.library import Library
from k8sflow.ui.progress import RunReader
from tests.counting import Counted
from tests.pages import Made, Reader, serving
from tests.waiting import wait_for

if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

pytestmark = pytest.mark.s3
MANY = 60
# A look lists the ends, the steps and the runs' objects, and reads a few records, whatever the number of tasks.
A_LOOK = 14


@pytest.fixture
def counted(s3_store: S3Store) -> tuple[S3Store, Counted]:
    """The same bucket as the server sees it, and the count of its requests; the run writes by another client."""
    seen = object.__new__(type(s3_store))
    vars(seen).update(vars(s3_store))
    client = seen._opened = Counted(s3_store._opened)  # type: ignore[assignment]
    return seen, client


@pytest.fixture
def bucket_reader(counted: tuple[S3Store, Counted]) -> Iterator[Reader]:
    with serving(counted[0]) as found:
        yield found


def states(reader: Reader) -> dict[str, str]:
    found = json.loads(reader.text("/runs/F/r1/state?since=0"))
    return {f"{found['steps'][row[0]][0]}/{row[1]}": row[2] for row in found["tasks"]}


def end_tasks(made: Made, numbers: range) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: made.task("work", str(number), square=number), numbers))


def test_a_look_takes_a_few_requests_whatever_the_number_of_tasks(
    s3_store: S3Store, counted: tuple[S3Store, Counted], graph: Graph
):
    """Also when many tasks have ended since the last one."""
    made = Made(s3_store, graph)
    made.task("start", width=MANY)
    end_tasks(made, range(20))
    store, client = counted
    reader = Library([store]).reader("F", "r1")

    def look() -> int:
        client.requests.clear()
        reader._read_at = float("-inf")
        reader.poll()
        assert reader.error == ""
        return sum(client.requests.values())

    assert look() <= A_LOOK
    assert reader.counts()["work"]["succeeded"] == 20
    end_tasks(made, range(20, MANY))
    assert look() <= A_LOOK
    assert reader.counts()["work"]["succeeded"] == MANY
    assert look() <= A_LOOK
    made.ends()
    assert look() <= A_LOOK
    assert reader.status == "succeeded"


def test_a_change_is_seen_at_the_next_look(
    bucket_reader: Reader, s3_store: S3Store, counted: tuple[S3Store, Counted], graph: Graph
):
    """Through the server, as the page asks; in the list of runs too."""
    made = Made(s3_store, graph)
    made.task("start", width=3)
    assert states(bucket_reader) == {"start/0": "succeeded"}
    made.starts("work", "0", output=b"hello\n")
    wait_for(lambda: states(bucket_reader).get("work/0") == "running")
    made.task("work", "0")
    wait_for(lambda: states(bucket_reader)["work/0"] == "succeeded")
    assert 'class="pill succeeded"' not in bucket_reader.text("/?part=rows")
    made.ends()
    wait_for(lambda: 'class="pill succeeded"' in bucket_reader.text("/?part=rows"))


def test_nothing_is_older_than_three_seconds(s3_store: S3Store, graph: Graph):
    """The age of the server's look, and the time until the page asks again."""
    made = Made(s3_store, graph)
    library = Library([s3_store])
    reader: RunReader = library.reader(made.records.flow, made.run)
    assert reader.oldest_seconds + reader.poll_seconds <= 3
    assert library.oldest_seconds + library.poll_seconds <= 3


def test_pages_that_ask_at_once_share_a_look(
    bucket_reader: Reader,
    s3_store: S3Store,
    counted: tuple[S3Store, Counted],
    graph: Graph,
    monkeypatch: pytest.MonkeyPatch,
):
    """Each of them only asks whether the run is still there."""
    made = Made(s3_store, graph)
    made.task("start", width=3)
    states(bucket_reader)
    monkeypatch.setattr(RunReader, "oldest_seconds", 3600.0)
    counted[1].requests.clear()
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: states(bucket_reader), range(10)))
    assert all(each == {"start/0": "succeeded"} for each in found)
    assert sum(counted[1].requests.values()) <= 10 + A_LOOK
