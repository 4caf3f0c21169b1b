"""Pictures of the pages of runs for docs/ui.md, from runs that are started for them.

make screenshots
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from k8sflow.storage.folder import FolderStore
from tests import exhibit
from tests.browser import chromium
from tests.cluster.places import CHECKOUT
from tests.pages import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = CHECKOUT / "docs" / "ui"
# The width of a page, and how much of its height a picture has at most, in pixels.
SIZES = {1440: 1300, 390: 1500}
SCHEMES = ("light", "dark")
PAGES = ("runs", "run", "failed-task", "card", "compare", "code")
QUALITY = 82
SHORTENING = """(home) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(home, "~");
}"""
# The part of a page that is on top of its picture, where that is not the page's beginning.
TOPS = {"card": "#cards-title"}


def main() -> None:
    """Run the flow, and take the pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="k8sflow-") as parent:
        folder = Path(parent) / "forecast"
        folder.mkdir()
        paths = exhibit.pages(exhibit.make(folder))
        with serving(FolderStore(folder / ".k8sflow")) as reader, chromium() as browser:
            for width in SIZES:
                for scheme in SCHEMES:
                    with opened(browser, width, scheme) as page:
                        page.goto(reader.server.url())
                        page.wait_for_selector("h1")
                        for name in PAGES:
                            page.set_viewport_size({"width": width, "height": 900})
                            show(page, f"http://127.0.0.1:{reader.server.port}{paths[name]}", parent)
                            take(page, width, TOPS.get(name), FOLDER / f"{name}-{width}-{scheme}.webp")
    size = sum(file.stat().st_size for file in FOLDER.glob("*.webp"))
    sys.stdout.write(f"{FOLDER}: {size / 1e6:.1f} MB\n")


@contextmanager
def opened(browser: Browser, width: int, scheme: str) -> Iterator[Page]:
    """A page of a width, light or dark."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        timezone_id="Europe/Oslo",
        is_mobile=width < 500,  # noqa: PLR2004  that of a phone
        reduced_motion="reduce",
    )
    context.set_default_timeout(60_000)
    try:
        yield context.new_page()
    finally:
        context.close()


def show(page: Page, url: str, home: str) -> None:
    """Open a page, and wait until its script and its frames have drawn everything; a path in ``home`` starts with ~."""
    page.goto(url)
    page.wait_for_selector("html.js" if page.locator("script").count() else "h1")
    if page.locator("[data-url]").count():
        page.wait_for_selector("[data-ready]")
    for number in range(page.locator("article.card iframe").count()):
        frame = page.locator("article.card iframe").nth(number)
        frame.scroll_into_view_if_needed()
        frame.content_frame.locator("svg, canvas, table").last.wait_for()
    page.evaluate("() => { document.activeElement?.blur(); scrollTo(0, 0); }")
    page.evaluate(SHORTENING, home)


def take(page: Page, width: int, top: str | None, file: Path) -> None:
    """Save a picture of a page."""
    start = 0 if top is None else max(int((page.locator(top).bounding_box() or {"y": 0})["y"]) - 20, 0)
    height = int(page.evaluate("document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": start, "width": width, "height": min(height - start, SIZES[width])}
    page.set_viewport_size({"width": width, "height": start + SIZES[width]})  # frames out of sight are not drawn
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    data = page.screenshot(full_page=True, clip=clip, animations="disabled")  # type: ignore[arg-type]
    Image.open(io.BytesIO(data)).save(file, "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
