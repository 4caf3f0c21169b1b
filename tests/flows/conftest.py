"""Fixtures of the tests that run flows as a user would."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Create a folder that counts as installed packages, so that its modules can be imported."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    return folder
