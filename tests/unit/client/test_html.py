"""Runs, steps, tasks and artifacts in notebooks: readable, and escaped, whatever their names and texts are."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from k8sflow.client import Run
from tests.inprocess import Failed, run_all, runner_of
from tests.support import load_flow, write_flow

EVIL = "<script>alert('&')</script>"
SOURCE = f"""
    class F(FlowSpec):
        fails = Parameter("fails", default=False)
        @step
        def start(self):
            self.items = list(range(30))
            self.next(self.work, foreach="items")
        @step
        def work(self):
            if self.fails and self.input == 3:
                raise ValueError({EVIL!r})
            self.square = self.input ** 2
            self.next(self.join)
        @step
        def join(self, inputs):
            self.next(self.end)
        @step
        def end(self): pass
"""


class _Text(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def _read(html: str) -> str:
    found = _Text()
    found.feed(html)
    found.close()
    assert not found.open
    assert set(found.tags) <= {"div", "strong", "code", "table", "thead", "tbody", "tr", "th", "td", "p", "pre"}
    return found.text


def _run(folder: Path, **values: object) -> Run:
    return run_all(runner_of(load_flow(write_flow(folder, SOURCE)), folder, **values))


def test_each_level_shows_its_properties_and_the_next_level(tmp_path: Path) -> None:
    """The tags are escaped; of many tasks the first ones are shown, and how many more there are."""
    run = _run(tmp_path)
    run.add_tag(EVIL)
    shown = _read(run._repr_html_())
    assert "Run   F/r1" in shown
    assert EVIL in shown
    assert "work 30 30" in shown
    step = _read(run["work"]._repr_html_())
    assert "0 succeeded" in step
    assert "… and 10 more" in step
    task = _read(run["work"]["3"]._repr_html_())
    assert "state succeeded attempt 0" in task
    assert "square builtins.int 5 B" in task
    artifact = _read(run["work"]["3"]["square"]._repr_html_())
    assert "DataArtifact   F/r1/work/3/square" in artifact
    assert run["work"]["3"]["square"].sha in artifact


def test_a_failure_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(Failed):
        _run(tmp_path, fails=True)
    runner = runner_of(load_flow(tmp_path / "flow.py"), tmp_path, "r2")
    task = Run(runner.run_store).beside("F", "r1")["work"]["3"]
    assert f"failure ValueError: {EVIL}" in _read(task._repr_html_())
    assert "artifact" in _read(task._repr_html_())  # its parameters


def test_long_words_are_broken_on_narrow_pages(tmp_path: Path) -> None:
    """A hash is longer than a telephone is wide."""
    cell = _run(tmp_path)["start"]["0"]["items"]._repr_html_().partition("<td ")[2]
    assert "overflow-wrap: anywhere" in cell.partition(">")[0]


def test_a_record_that_cannot_be_read_shows_the_error(tmp_path: Path) -> None:
    """The cell shows it without a traceback."""
    runner = runner_of(load_flow(write_flow(tmp_path, SOURCE)), tmp_path)
    runner.store.put("F/runs/r1/run.json", [b'{"format":99}'])
    assert "has the format 99" in _read(Run(runner.run_store)._repr_html_())
