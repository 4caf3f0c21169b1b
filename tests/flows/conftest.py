"""Fixtures of the tests that run flows as a user would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support import flow_command
from tests.wheels import uv_settings


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Create a folder that counts as installed packages, so that its modules can be imported."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of k8sflow's and uv's caches, which does not exist yet."""
    return tmp_path / "cache"


@pytest.fixture
def command(wheels: Path, cache: Path) -> Callable[..., CompletedProcess[str]]:
    """Run a command of a flow with the wheels of the test as its only index."""

    def run(file: Path, *arguments: str, **changes: str) -> CompletedProcess[str]:
        return flow_command(file, *arguments, **{**uv_settings(wheels, cache), **changes})

    return run
