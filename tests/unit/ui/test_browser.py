"""The pages in a real browser: Debian's Chromium, which is installed where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.cards import CardName, TaskCards
from k8sflow.storage.objects import ObjectStore
from tests.browser import chromium
from tests.pages import Made, Reader, serving
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for all tests of this module."""
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, reader: Reader) -> Iterator[Page]:
    """A page that has opened the printed address, in Tokyo; an error of a script fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, timezone_id="Asia/Tokyo")
    context.set_default_timeout(60_000)
    page = context.new_page()
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(reader.server.url())
    page.wait_for_selector("h1")
    yield page
    context.close()
    assert errors == []


def open_page(page: Page, reader: Reader, path: str) -> None:
    page.goto(f"http://127.0.0.1:{reader.server.port}{path}")


def test_a_run_is_watched_while_it_runs(page: Page, reader: Reader, store: ObjectStore, graph: Graph):
    """From the list to the run, its tasks as they come, and the failure at its end, without loading a page again."""
    page.wait_for_selector("text=There are no runs yet")
    made = Made(store, graph)
    made.task("start", width=2)
    page.click("text=F/r1")
    page.wait_for_selector("[data-ready]")
    made.task("work", "0")
    page.wait_for_selector("#task-list >> text=work/0")
    page.wait_for_selector(".graph g.running text.count >> text=1/2")
    made.fails("work", "1", summary="ValueError: <img src=x onerror=alert(1)>", resolution="Fix it.")
    made.ends(Outcome.USER_ERROR, "work/1 failed")
    page.wait_for_selector("text=Why the run failed")
    assert "<img src=x" in page.inner_text("#failures")
    page.click("#failures a")
    page.wait_for_selector("h1 >> text=work/1")


def test_output_is_followed_and_searched(page: Page, reader: Reader, store: ObjectStore, graph: Graph):
    """Colours are kept; markup in it is text."""
    made = Made(store, graph)
    log = made.records.open_log("start", "0", 0, "stdout")
    log.write(b"\x1b[1;31mred\x1b[0m <b>no markup</b>\n")
    open_page(page, reader, "/runs/F/r1/tasks/start/0")
    page.wait_for_selector("#log b.f1 >> text=red")
    expect(page.locator("#log b")).to_have_count(1)
    log.write(b"and later\n" * 3)
    page.wait_for_selector("#log .line >> text=and later")
    page.fill("#log-search", "LATER")
    page.press("#log-search", "Enter")
    page.wait_for_selector("text=1 of 3 lines here")
    page.press("#log-search", "Enter")
    page.wait_for_selector("text=2 of 3 lines here")
    log.close()


def test_the_next_execution_of_a_task_replaces_the_last_one(
    page: Page, reader: Reader, store: ObjectStore, graph: Graph
):
    """Its output is shown from its beginning, and none of the one before it.

    Until the page's script runs, the log is plain text without the lines that the script makes of it.
    """
    made = Made(store, graph)
    made.task("start", width=1)
    made.starts("work", output=b"the first one\n" * 3)
    open_page(page, reader, "/runs/F/r1/tasks/work/0")
    page.wait_for_selector("#log .line >> text=the first one")
    made.fails("work", "0")
    page.wait_for_selector("#status >> text=waits for a retry")
    made.starts("work", "0", 1, b"the second one\n")
    page.wait_for_selector("#log .line >> text=the second one")
    expect(page.locator("#log .line")).to_have_count(1)
    made.task("work", "0", attempt=1)
    page.wait_for_selector("#status >> text=succeeded")


def test_a_search_in_a_long_log_fetches_only_what_is_shown(
    page: Page, reader: Reader, store: ObjectStore, graph: Graph
):
    """A piece around the hit, out of ten megabytes; it stays in sight while the page is updated."""
    made = Made(store, graph)
    lines = b"".join(b"line %d\n" % number for number in range(800_000))
    made.starts("start", output=lines)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_page(page, reader, "/runs/F/r1/tasks/start/0")
    page.wait_for_selector("#log .line >> text=line 799999")
    del asked[:]
    page.fill("#log-search", "line 400000")
    page.press("#log-search", "Enter")
    page.wait_for_selector("#log .now:has-text('line 400000')")
    for _ in range(2):  # the page is looked at again, once a second
        with page.expect_request(lambda request: request.url.endswith("/tasks/start/0")):
            pass
    assert len([url for url in asked if "/log?" in url]) <= 3
    expect(page.locator("#log .now:has-text('line 400000')")).to_be_visible()
    expect(page.locator("text=Show earlier output")).to_be_visible()
    page.check("#log-follow")
    page.wait_for_selector("#log .line >> text=line 799999")
    assert len([url for url in asked if "/log?" in url]) <= 7


def test_lines_that_a_long_log_drops_can_be_shown_again(page: Page, reader: Reader, store: ObjectStore, graph: Graph):
    """The page keeps the last 20,000 lines."""
    made = Made(store, graph)
    made.task("start", output=b"".join(b"%04d\n" % (number % 10_000) for number in range(25_000)))
    made.ends()
    open_page(page, reader, "/runs/F/r1/tasks/start/0")
    page.wait_for_selector("text=bytes 25,000 to 125,000")
    expect(page.locator("#log .line")).to_have_count(20_000)
    page.click("text=Show earlier output")
    page.wait_for_selector("#log-said >> text=125.0 kB")
    expect(page.locator("#log .line")).to_have_count(25_000)


def test_artifacts_and_cards_are_opened(page: Page, reader: Reader, store: ObjectStore, graph: Graph):
    """A script in a card runs in its frame, without the rights of this site."""
    made = Made(store, graph)
    made.task("start", table=[{"city": "Oslo", "n": 3}])
    script = "<p id=said></p><script>said.textContent = (() => {try { return 'got ' + document.cookie } "
    script += "catch { return 'refused' }})()</script>"
    TaskCards(made.records, "start", "0", 0).write(CardName(0), script)
    made.ends()
    open_page(page, reader, "/runs/F/r1/tasks/start/0")
    page.click("summary >> text=table")
    page.wait_for_selector("td >> text=Oslo")
    page.frame_locator("article.card iframe").locator("text=refused").wait_for()


def test_a_thousand_runs_are_filtered(page: Page, reader: Reader, store: ObjectStore, graph: Graph):
    for number in range(1_000):
        Made(
            store, graph, f"r{number}", created=1e6 + number, more={"user": "bob" if number % 100 == 0 else "ada"}
        ).ends()
    open_page(page, reader, "/")
    page.wait_for_selector("text=1,000 runs")
    page.select_option("select[name=user]", "bob")
    page.wait_for_selector("text=10 of 1,000 runs")
    expect(page.locator("tbody tr")).to_have_count(10)


def test_tags_are_changed(browser: Browser, store: ObjectStore, graph: Graph):
    """By forms, with the keyboard too: Enter in the field adds a tag."""
    made = Made(store, graph, more={"tags": ("nightly",)})
    made.ends()
    with serving(store, may_edit_tags=True) as editor, browser.new_context() as context:
        page = context.new_page()
        page.goto(editor.server.url("/runs/F/r1"))
        page.get_by_label("New tag").fill("good & <b>new</b>")
        page.get_by_label("New tag").press("Enter")
        expect(page.locator(".removable a")).to_have_text(["good & <b>new</b>", "nightly"])
        page.get_by_role("button", name="Remove the tag nightly").click()
        expect(page.locator(".removable a")).to_have_text(["good & <b>new</b>"])
        expect(page).to_have_url(f"http://127.0.0.1:{editor.server.port}/runs/F/r1#tags")
    assert made.records.read_tags() == ("good & <b>new</b>",)


def test_runs_are_filtered_by_the_times_of_the_readers_zone(
    page: Page, reader: Reader, store: ObjectStore, graph: Graph
):
    """The list has them in that zone too."""
    Made(store, graph, "early", created=1.7e9 - 60).ends()
    Made(store, graph, "late", created=1.7e9).ends()  # 22:13:20 in UTC
    open_page(page, reader, "/")
    page.wait_for_selector("tr[data-run='F/late'] >> text=2023-11-15 07:13:20")
    page.fill("input[name=since]", "2023-11-15T07:13")
    page.wait_for_selector("text=1 of 2 run")
    assert "since=2023-11-15T07%3A13%2B09%3A00" in page.url
    wait_for(lambda: page.input_value("input[name=since]") == "2023-11-15T07:13")
    assert page.locator("tbody tr").get_attribute("data-run") == "F/late"


def test_ten_thousand_tasks_are_drawn_by_the_rows_in_sight(
    page: Page, reader: Reader, store: ObjectStore, graph: Graph
):
    """With the keyboard alone: the last task is chosen, and opened."""
    made = Made(store, graph)
    made.task("start", width=10_000)
    prefix = f"{made.records.prefix}/ends/work"
    for number in range(10_000):
        store.put(f"{prefix}/{number}_a0_s{made.created + 4}_f{made.created + 5 + number % 9}", [b"{}"])
    made.task("work", "9999")
    made.ends()
    open_page(page, reader, "/runs/F/r1")
    page.wait_for_selector("[data-ready]")
    page.wait_for_selector("text=10,001 tasks")
    expect(page.locator("#task-list tbody tr")).to_have_count(200)
    page.focus("#gantt")
    page.press("#gantt", "End")
    page.wait_for_selector("#gantt-said >> text=work/9999: succeeded")
    page.press("#gantt", "+")
    page.press("#gantt", "ArrowLeft")
    page.press("#gantt", "Enter")
    page.wait_for_selector("h1 >> text=work/9999")


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_window(page: Page, reader: Reader, store: ObjectStore, graph: Graph, width: int):
    made = Made(store, graph, "r" * 100, parameters={"text": "x" * 300}, more={"tags": ("t" * 100,)})
    made.task("start", width=1, long="y" * 300)
    made.fails("work", "0", summary="z" * 300)
    made.ends(Outcome.USER_ERROR, "z" * 300)
    page.set_viewport_size({"width": width, "height": 800})
    run = f"/runs/F/{'r' * 100}"
    for path in ("/", run, f"{run}/tasks/start/0", f"{run}/tasks/work/0"):
        open_page(page, reader, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
