"""The content of the pages, without a browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from k8sflow.errors import StorageError
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.cards import CardName, TaskCards
from k8sflow.storage.objects import ObjectStore
from k8sflow.ui.library import Library, RunRow
from tests.pages import Made, Reader, serving
from tests.waiting import wait_for

NASTY = "<script>alert('x')</script>\"'&"


def state(reader: Reader, run: str = "r1", since: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reader.text(f"/runs/F/{run}/state?since={since}"))
    return found


def tasks(reader: Reader, run: str = "r1") -> dict[str, str]:
    found = state(reader, run)
    return {f"{found['steps'][row[0]][0]}/{row[1]}": row[2] for row in found["tasks"]}


@pytest.fixture
def made(store: ObjectStore, graph: Graph) -> Made:
    """A run that is under way: a branch succeeded, one waits for a retry, one runs."""
    found = Made(store, graph, parameters={"rate": 0.1, "text": NASTY})
    found.task("start", width=3)
    found.task("work", "0", at=4, attempt=1, got=7)
    found.fails("work", "0", 0, "ValueError: first")
    found.fails("work", "1", summary=f"ValueError: {NASTY}", detail=f"Traceback {NASTY}", resolution="Fix it.")
    found.starts("work", "2", output=b"hello \x1b[31mred\x1b[0m\n")
    return found


def test_a_store_without_runs_says_how_to_start_one(reader: Reader):
    assert "python flow.py run" in reader.text("/")


def test_the_list_has_each_run_with_its_facts(reader: Reader, store: ObjectStore, graph: Graph):
    Made(store, graph, "r1", more={"tags": ("nightly",)}).ends()
    Made(store, graph, "r2", created=2e6).ends(Outcome.USER_ERROR, "it failed")
    text = reader.text("/")
    assert text.index("F/</span>r2") < text.index("F/</span>r1")
    assert 'class="pill failed"' in text
    assert 'class="pill succeeded"' in text
    assert "12.0 s" in text
    assert "nightly" in text
    assert "50.0 MB" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("flow=F", {"r1", "r2", "r3"}),
        ("flow=G", set()),
        ("status=failed", {"r2"}),
        ("user=bob", {"r3"}),
        ("tag=nightly", {"r1", "r2"}),
        ("tag=nightly+user:ada", {"r1", "r2"}),
        ("tag=nightly+other", set()),
        ("text=NIGHT", {"r1", "r2"}),
        ("text=r3", {"r3"}),
        ("since=2001-01-01T00:00", {"r3"}),
        ("until=1980-01-01T00:00", {"r1", "r2"}),
        ("since=2023-11-15T07:13%2B09:00", {"r3"}),
        ("since=2023-11-15T07:14%2B09:00", set()),
        ("since=nonsense&status=", {"r1", "r2", "r3"}),
    ],
)
def test_the_list_is_filtered(reader: Reader, store: ObjectStore, graph: Graph, query: str, found: set[str]):
    Made(store, graph, "r1", more={"tags": ("nightly",)}).ends()
    Made(store, graph, "r2", more={"tags": ("nightly",)}).ends(Outcome.TIMED_OUT)
    Made(store, graph, "r3", created=1.7e9, more={"user": "bob"}).ends()
    text = reader.text(f"/?part=rows&{query}")
    assert {run for run in ("r1", "r2", "r3") if f'data-run="F/{run}"' in text} == found


def test_more_runs_are_shown_on_a_whole_page(reader: Reader, store: ObjectStore, graph: Graph):
    """Also after the rows were fetched again by themselves; the filter is kept."""
    for number in range(3):
        Made(store, graph, f"r{number}").ends()
    for part in ("", "&part=rows"):
        found = re.search(r'href="([^"]+)">Show more<', reader.text(f"/?user=ada&most=2{part}"))
        assert found is not None
        assert html.unescape(found[1]) == "/?user=ada&most=1002"


def test_the_list_follows_the_store(reader: Reader, store: ObjectStore, graph: Graph):
    """New runs, ends, tags and deleted runs are seen, although ended runs are read once."""
    made = Made(store, graph)
    wait_for(lambda: 'class="pill running"' in reader.text("/") or 'class="pill no-driver"' in reader.text("/"))
    made.ends()
    wait_for(lambda: 'class="pill succeeded"' in reader.text("/"))
    made.records.change_tags(lambda _: ("later",))
    wait_for(lambda: ">later</a>" in reader.text("/"))
    store.delete(list(store.list_keys("F/")))
    wait_for(lambda: 'data-run="F/r1"' not in reader.text("/"))


def test_a_run_shows_its_tasks_by_state(reader: Reader, made: Made):
    assert tasks(reader) == {"start/0": "succeeded", "work/0": "succeeded", "work/1": "retrying", "work/2": "running"}
    text = reader.text("/runs/F/r1")
    assert "ValueError: " in text
    assert "Fix it." in text
    assert "1 / 3" in text


def test_a_run_that_is_opened_first_has_one_before_it(reader: Reader, store: ObjectStore, graph: Graph):
    """Nobody has looked at the list before."""
    for number in range(3):
        Made(store, graph, f"2026010{number + 1}-000000-000000", created=1e6 + number).ends()
    text = reader.text("/runs/F/20260102-000000-000000")
    assert 'href="/runs/F/20260101-000000-000000">run before<' in text
    assert "compare with it" in text
    assert "run before" not in reader.text("/runs/F/20260101-000000-000000")


def test_what_changed_is_sent_once(reader: Reader, made: Made):
    """A page asks for what is newer than what it has."""
    first = state(reader)
    assert len(first["tasks"]) == 4
    assert state(reader, since=first["version"])["tasks"] == []
    made.task("work", "2", got=1)
    found = wait_for(lambda: state(reader, since=first["version"])["tasks"])
    assert [row[:3] for row in found] == [[1, "2", "succeeded"]]


def test_executions_before_the_last_are_kept_apart(reader: Reader, made: Made):
    """A retry is a failure with its own times, before the execution that counts."""
    row = next(row for row in state(reader)["tasks"] if row[:2] == [1, "0"])
    ready, _, started, finished = row[4:8]
    assert (ready, started, finished) == (1_000_003.0, 1_000_004.0, 1_000_006.0)
    assert [(attempt, outcome) for attempt, outcome, *_ in row[10]] == [(0, "user_error")]


def test_a_run_that_ended_has_no_running_tasks(reader: Reader, made: Made):
    """A task without an end was cut off, and one that waited for a retry has failed."""
    made.ends(Outcome.USER_ERROR, "work/1 failed")
    assert tasks(reader)["work/1"] == "failed"
    assert tasks(reader)["work/2"] == "lost"
    assert "Why the run failed" in reader.text("/runs/F/r1")


def test_no_text_of_a_run_becomes_markup(reader: Reader, store: ObjectStore, graph: Graph):
    """Parameters, tags, users, summaries, output, artifacts, sources, versions and names of runs."""
    run = "r <b>&'\"x"
    more = {"user": NASTY, "tags": (NASTY,), "source": NASTY, "python_version": NASTY, "decorators": (NASTY,)}
    made = Made(store, graph, run, parameters={"text": NASTY, "other": {NASTY: [NASTY]}}, more=more)
    made.task("start", width=1, output=NASTY.encode(), value=NASTY, table=[{NASTY: NASTY}])
    made.fails("work", "0", summary=NASTY, detail=NASTY, resolution=NASTY)
    made.ends(Outcome.USER_ERROR, NASTY)
    quoted = "r%20%3Cb%3E%26%27%22x"
    base = f"/runs/F/{quoted}"
    start = f"{base}/tasks/start/0"
    paths = ["/", base, f"{base}/overview", start, f"{base}/tasks/work/0", f"/compare?run=F/{quoted}&run=F/{quoted}"]
    paths += [f"{start}/artifacts/{name}" for name in ("value", "table", "other")]
    paths += ["/?text=%3Cscript%3Ealert('x')&tag=%22%3E%3Cscript%3E"]
    for path in paths:
        text = reader.text(path)
        assert "<script>" not in text, path
        assert "alert(" in text, path
        assert "<b>&" not in text, path
    missing = reader.ask("/runs/F/%3Cscript%3Ealert(1)%3C%2Fscript%3E/x")
    assert "<script>" not in missing.text


def test_the_output_is_read_in_pieces(reader: Reader, store: ObjectStore, graph: Graph):
    made = Made(store, graph)
    made.task("start", output=b"0123456789")
    made.ends()
    log = "/runs/F/r1/tasks/start/0/log"
    assert reader.text(f"{log}?from=0") == "0123456789"
    assert reader.text(f"{log}?from=7") == "789"
    end = reader.ask(f"{log}?from=10")
    assert end.data == b""
    assert end.headers["x-ended"] == "1"
    found = reader.ask("/runs/F/r1/tasks/start/0/download?stream=stdout")
    assert found.data == b"0123456789"
    assert "F-r1-start-0-0.stdout.txt" in found.headers["content-disposition"]


def test_an_execution_can_be_chosen(reader: Reader, made: Made):
    text = reader.text("/runs/F/r1/tasks/work/0?attempt=0")
    assert "ValueError: first" in text
    assert "ValueError: first" not in reader.text("/runs/F/r1/tasks/work/0")
    assert reader.ask("/runs/F/r1/tasks/work/0?attempt=7").status == 404


def test_a_task_that_waits_for_a_retry_has_not_failed(reader: Reader, made: Made):
    """The page names the execution that it shows, so that its script doesn't read the output of another one."""
    page = "/runs/F/r1/tasks/work/1"
    text = reader.text(page)
    assert 'data-attempt="0" data-state="retrying"' in text
    assert 'data-over="0"' in text
    made.starts("work", "1", 1, b"once more")
    wait_for(lambda: 'data-attempt="1" data-state="running"' in reader.text(page))
    assert reader.text(f"{page}/log?attempt=0") == ""
    assert reader.text(f"{page}/log?attempt=1") == "once more"
    assert 'data-attempt="0" data-state="failed"' in reader.text(f"{page}?attempt=0")
    made.ends(Outcome.USER_ERROR)
    wait_for(lambda: 'data-state="lost"' in reader.text(page))
    assert 'data-over="1"' in reader.text(page)


@pytest.mark.parametrize("attempt", ["x", "-1", "9" * 5_000, "9" * 20, "%D9%A3", "1_0", "0x1"])
def test_the_number_of_an_execution_is_checked(reader: Reader, made: Made, attempt: str):
    for part in ("", "/log", "/download", "/artifacts/x", "/cards/x"):
        assert reader.ask(f"/runs/F/r1/tasks/work/0{part}?attempt={attempt}").status == 404, part


def test_the_page_is_readable_without_scripts(reader: Reader, made: Made):
    """The output without its colours, and the tasks as a table with links."""
    assert "hello red" in reader.text("/runs/F/r1/tasks/work/2")
    assert 'href="/runs/F/r1/tasks/work/2"' in reader.text("/runs/F/r1")


def test_a_text_is_found_in_a_log(reader: Reader, store: ObjectStore, graph: Graph):
    made = Made(store, graph)
    made.task("start", output=b"one\n" * 100_000 + "der Würfel\n".encode() + b"two\n" * 3)
    find = "/runs/F/r1/tasks/start/0/find"
    assert json.loads(reader.text(f"{find}?text=w%C3%9Crfel&from=0")) == {"at": None}  # capital letters of ASCII alone
    assert json.loads(reader.text(f"{find}?text=w%C3%BCRF&from=0")) == {"at": 400_000}
    assert json.loads(reader.text(f"{find}?text=TWO&from=0"))["at"] > 400_000
    assert json.loads(reader.text(f"{find}?text=.*&from=0")) == {"at": None}


def test_cards_are_in_a_sandbox(reader: Reader, made: Made):
    """Opened by itself, a card has no rights here either."""
    cards = TaskCards(made.records, "work", "0", 1)
    cards.write(CardName(0, "default"), "<h1>the card</h1><script>alert(1)</script>")
    text = reader.text("/runs/F/r1/tasks/work/0")
    assert '<iframe src="/runs/F/r1/tasks/work/0/cards/0.default?attempt=1" sandbox="allow-scripts' in text
    found = reader.ask("/runs/F/r1/tasks/work/0/cards/0.default?attempt=1")
    assert "the card" in found.text
    assert found.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in found.headers["content-security-policy"]
    assert reader.ask("/runs/F/r1/tasks/work/0/cards/1.default").status == 404


def test_two_runs_side_by_side(reader: Reader, store: ObjectStore, graph: Graph):
    for run, rate in (("r1", 0.1), ("r2", 0.2)):
        made = Made(store, graph, run, parameters={"rate": rate, "same": 1})
        made.task("start", width=1, model=f"model of {rate}", size=7)
        made.ends()
    text = reader.text("/compare?run=F/r1&run=F/r2")
    assert text.count('class="differs"') == 1
    assert "model of 0.1" in text
    assert "model of 0.2" in text
    assert ">size<" not in text
    assert reader.ask("/compare?run=F/r1").status == 404
    assert reader.ask("/compare?run=F/r1&run=F/%2e%2e").status == 404


def test_a_store_that_fails_is_asked_once_for_all(store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    """Those who wait get the same answer; the next ones ask again."""
    library, asked = Library([store]), []
    monkeypatch.setattr(Library, "poll_seconds", 3600.0)

    def fail() -> list[RunRow]:
        asked.append(1)
        raise StorageError("the bucket does not answer.")

    monkeypatch.setattr(library, "_listed", fail)
    for _ in range(3):
        with pytest.raises(StorageError):
            library.rows()
    assert len(asked) == 1
    monkeypatch.setattr(Library, "poll_seconds", 0.0)
    with pytest.raises(StorageError):
        library.rows()
    assert len(asked) == 2


def test_a_mistake_of_the_server_is_a_page(reader: Reader, store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    """It has the same policies as the others."""
    monkeypatch.setattr(Library, "rows", lambda _: 1 / 0)
    found = reader.ask("/")
    assert found.status == 500
    assert "ZeroDivisionError" in found.text
    assert "default-src 'none'" in found.headers["content-security-policy"]


def test_an_end_that_is_another_one_is_read_again(store: ObjectStore, graph: Graph, monkeypatch: pytest.MonkeyPatch):
    """A run that was continued: what it did since is seen, although its first end was settled long before."""
    monkeypatch.setattr("k8sflow.ui.progress._SETTLED_SECONDS", 0.0)
    made = Made(store, graph)
    made.task("start", width=2)
    made.ends(Outcome.USER_ERROR)
    follower = Library([store]).reader("F", "r1")

    def look() -> set[str]:
        follower._read_at = float("-inf")
        follower.poll()
        return {f"{row.step}/{row.task}" for row in follower.rows()}

    for _ in range(3):
        assert look() == {"start/0"}
    monkeypatch.setattr("k8sflow.ui.progress._SETTLED_SECONDS", 3600.0)
    made.ends(Outcome.SUCCEEDED)
    look()
    made.task("work", "0")  # a bucket may list it after the end
    assert look() == {"start/0", "work/0"}


@pytest.fixture
def unpickling(store: ObjectStore) -> Iterator[Reader]:
    """The pages of a server that may load artifacts."""
    with serving(store, may_unpickle=True) as found:
        yield found


class Marked:
    """A value whose loading is seen."""

    loaded = 0

    def __init__(self) -> None:
        self.inside = "some text"

    def __setstate__(self, found: dict[str, Any]) -> None:
        Marked.loaded += 1
        self.__dict__.update(found)

    def __repr__(self) -> str:
        return f"marked with {self.inside}"


def test_tables_and_nested_values_are_markup(reader: Reader, store: ObjectStore, graph: Graph):
    """Made by the server from data, so the template doesn't escape it again."""
    made = Made(store, graph)
    made.task("start", table=[{"city": "Oslo", "n": 3}], tree={"a": {"b": [1, "<b>"]}})
    assert "<td>Oslo</td>" in reader.text("/runs/F/r1/tasks/start/0/artifacts/table")
    tree = reader.text("/runs/F/r1/tasks/start/0/artifacts/tree")
    assert "<details" in tree
    assert "&lt;b&gt;" in tree


def test_a_large_artifact_is_shown_by_its_beginning(reader: Reader, store: ObjectStore, graph: Graph):
    """It is compressed where the library for that is there."""
    made = Made(store, graph)
    made.task("start", words=[f"word {number}" for number in range(20_000)])
    text = reader.text("/runs/F/r1/tasks/start/0/artifacts/words")
    assert "word 999" in text
    assert "word 19999" not in text
    assert "and 19,000 more" in text


def test_artifacts_are_not_unpickled(reader: Reader, store: ObjectStore, graph: Graph, monkeypatch: pytest.MonkeyPatch):
    """Their parts are shown; the class is a name."""
    monkeypatch.setattr(Marked, "loaded", 0)
    made = Made(store, graph)
    made.task("start", value=Marked())
    Marked.loaded = 0  # saving it has loaded it
    text = reader.text("/runs/F/r1/tasks/start/0/artifacts/value")
    assert "Marked" in text
    assert "some text" in text
    assert Marked.loaded == 0
    assert reader.ask("/runs/F/r1/tasks/start/0/artifacts/value/loaded").status == 404


def test_artifacts_are_unpickled_where_that_was_asked_for(unpickling: Reader, store: ObjectStore, graph: Graph):
    """The value is in a sandbox: its own class may have written the HTML."""
    made = Made(store, graph)
    made.task("start", value=Marked())
    found = unpickling.ask("/runs/F/r1/tasks/start/0/artifacts/value/loaded")
    assert "marked with some text" in found.text
    assert found.headers["content-security-policy"].startswith("sandbox")
