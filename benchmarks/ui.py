"""The pages of runs in a browser: how soon they are useful, how smoothly a timeline moves; and the price of a card.

make bench-ui
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from resume import definition_in
from side_by_side import Comparison, Contender, options, run_all

from k8sflow.flow.graph import Graph
from k8sflow.storage.folder import FolderStore
from k8sflow.ui.library import Library
from tests.browser import chromium
from tests.pages import Made, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RUNS, TASKS, FRAMES, STEPS = 1_000, 10_000, 120, 8
CARDED = """from k8sflow import FlowSpec, card, step
class F(FlowSpec):
    @step
    def start(self): self.next(self.s0)
%s
    @step
    def end(self): pass
if __name__ == "__main__": F()
"""
# Moves the timeline by a pixel in each frame, as a mouse does, and returns after so many frames.
DRAG = """([frames, isMoved]) => new Promise((done) => {
  const gantt = document.getElementById("gantt"), box = gantt.getBoundingClientRect(), y = box.top + 150;
  const send = (type, x) => isMoved && gantt.dispatchEvent(new PointerEvent(type, {
    bubbles: true, clientX: x, clientY: y, pointerId: 1, button: 0, buttons: type === "pointerup" ? 0 : 1 }));
  let frame = 0;
  send("pointerdown", box.left + 400);
  requestAnimationFrame(function next() {
    send("pointermove", box.left + 400 + Math.round(80 * Math.sin(frame / 10)));
    if (frame++ < frames) requestAnimationFrame(next);
    else { send("pointerup", box.left + 400); done(); }
  });
})"""


def main() -> None:
    """Write the runs, and open their pages."""
    chosen = options("The pages of runs.", times=5).parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        graph = definition_in(folder).graph
        browser = stack.enter_context(chromium())
        run_all(comparisons(folder, graph, browser, chosen.times), chosen)


def comparisons(folder: Path, graph: Graph, browser: Browser, times: int) -> Iterator[Comparison]:
    """All comparisons; each writes its runs when it is asked for."""
    yield list_of_runs(folder / "many", graph, browser, times)
    yield from wide_run(folder / "wide", graph, browser, times)
    yield cards(folder / "cards", times)


def list_of_runs(folder: Path, graph: Graph, browser: Browser, times: int) -> Comparison:
    """The list, from a server that has just been started."""
    store = FolderStore(folder)
    for number in range(RUNS):
        name = f"20260101-{number // 3600:02}{number // 60 % 60:02}{number % 60:02}-000000"
        Made(store, graph, name, created=1.7e9 + number, more={"tags": ("nightly",)}).ends()

    def read() -> None:
        for directory, _, files in os.walk(folder):
            for file in files:
                Path(directory, file).read_bytes()

    contenders = (
        Contender("k8sflow", lambda: _opened(browser, store, "/", "text=1,000 runs"), times),
        Contender("the list alone", lambda: _listed(store), times),
        Contender("bare", read, times),
    )
    return Comparison(f"{RUNS:,} runs", "reads of their files", contenders)


def wide_run(folder: Path, graph: Graph, browser: Browser, times: int) -> Iterator[Comparison]:
    """A run with many tasks: its page from a server that has just been started, and its timeline."""
    store = FolderStore(folder)
    made = Made(store, graph)
    made.task("start", width=TASKS)
    prefix = f"{made.records.prefix}/ends/work"
    for number in range(TASKS):
        store.put(f"{prefix}/{number}_a0_s{made.created + 4}_f{made.created + 5 + number % 9}", [b"{}"])
    made.ends()

    def list_names() -> None:
        assert sum(1 for _ in (folder / prefix).iterdir()) == TASKS

    contenders = (
        Contender("k8sflow", lambda: _opened(browser, store, "/runs/F/r1", "[data-ready]"), times),
        Contender("bare", list_names, times),
    )
    yield Comparison(f"a run of {TASKS:,} tasks", "a listing of the folder with their ends", contenders)
    with serving(store) as reader, browser.new_context() as context:
        page = context.new_page()
        _open(page, reader.server.url("/runs/F/r1"), "[data-ready]")
        moved, still = ([FRAMES, each] for each in (True, False))
        contenders = (
            Contender("k8sflow", lambda: page.evaluate(DRAG, moved), times),
            Contender("bare", lambda: page.evaluate(DRAG, still), times),
        )
        yield Comparison(f"{FRAMES} frames of a dragged timeline", "as many frames of the page at rest", contenders)


def _listed(store: FolderStore) -> None:
    assert len(Library([store]).rows()) == RUNS


def _opened(browser: Browser, store: FolderStore, path: str, selector: str) -> None:
    with serving(store) as reader, browser.new_context() as context:
        _open(context.new_page(), reader.server.url(path), selector)


def _open(page: Page, url: str, selector: str) -> None:
    page.goto(url)
    page.wait_for_selector(selector)


def cards(folder: Path, times: int) -> Comparison:
    """A run of steps with a card each, and the same without."""
    folder.mkdir(exist_ok=True)
    files = {name: folder / f"{name}.py" for name in ("carded", "plain")}
    for name, file in files.items():
        steps = "".join(
            f"{'    @card' if name == 'carded' else ''}\n    @step\n    def s{number}(self):\n"
            f"        self.n = {number}\n        self.next(self.{f's{number + 1}' if number + 1 < STEPS else 'end'})\n"
            for number in range(STEPS)
        )
        file.write_text(CARDED % steps)
    contenders = (
        Contender("k8sflow", lambda: _ran(files["carded"]), times),
        Contender("without cards", lambda: _ran(files["plain"]), times),
    )
    return Comparison(f"{STEPS} steps with a card each", "the same steps without", contenders)


def _ran(file: Path) -> None:
    subprocess.run([sys.executable, file, "run"], cwd=file.parent, check=True, capture_output=True)


if __name__ == "__main__":
    main()
