"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cluster.host import ensure_programs

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; install it first where it is missing."""
    from playwright.sync_api import sync_playwright

    if shutil.which("chromium") is None:
        ensure_programs({"chromium": "chromium", "fc-match": "fontconfig"}, doing="test the pages in a browser")
    with sync_playwright() as playwright:
        # As root, its own sandbox can't be used; the pages are the tests' own.
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=120_000
        )
        try:
            yield browser
        finally:
            browser.close()
