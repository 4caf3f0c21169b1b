"""Every page under axe-core, light and dark, at the width of a desk and of a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from k8sflow.storage.folder import FolderStore
from tests import exhibit
from tests.browser import chromium
from tests.pages import Reader, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, dict[str, str]]]:
    """The pages of real runs, by what they show."""
    folder: Path = tmp_path_factory.mktemp("exhibit")
    paths = exhibit.pages(exhibit.make(folder))
    with serving(FolderStore(folder / ".k8sflow"), may_edit_tags=True, may_unpickle=True) as reader:
        yield reader, {**paths, "filtered": "/?flow=nothing&status=failed", "missing": "/runs/F/none"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing(browser: Browser, shown: tuple[Reader, dict[str, str]], scheme: Scheme, width: int):
    """Neither before nor after something is opened; cards are checked with their pages, whose content is their own."""
    from axe_playwright_python.sync_playwright import Axe

    reader, paths = shown
    found: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(reader.server.url())
        page.wait_for_selector("h1")
        for name, path in paths.items():
            page.goto(f"http://127.0.0.1:{reader.server.port}{path}")
            page.wait_for_selector("[data-ready]" if page.locator("[data-url]").count() else "h1")
            for summary in page.locator("details.artifact > summary").all():
                summary.click()
            page.wait_for_function("() => !document.querySelector('details.artifact[open] .value > a')")
            result: dict[str, Any] = Axe().run(page).response
            found += [
                f"{name}: {each['id']} ({each['impact']}): {node['target']} {node['html'][:120]}"
                for each in result["violations"]
                for node in each["nodes"][:3]
            ]
    assert not found, "\n".join(found)
