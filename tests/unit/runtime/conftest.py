"""Fixtures of the tests of detached runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.controller.flowrun_api import FlowRunApi, flowrun_api_of_environment


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowRunApi]:
    """A server that the kubeconfig of the environment names."""
    with flowrun_api_of_environment(tmp_path, monkeypatch) as running:
        yield running
