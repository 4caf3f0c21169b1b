"""An executor against a scripted API server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.executors.kubernetes_driver import Driver
from tests.unit.kubernetes.fake_api import FakeApi, fake_api


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times after which one looks at what hangs, shortened."""
    monkeypatch.setattr("k8sflow.kubernetes.api._FIRST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr("k8sflow.executors.kubernetes.stuck._FIRST_LOOK_SECONDS", 0.2)
    monkeypatch.setattr("k8sflow.executors.kubernetes.stuck._LATE_POD_SECONDS", 0.3)


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with fake_api() as running:
        running.put("namespaces", {"metadata": {"name": "lab"}})
        yield running


@pytest.fixture
def start(server: FakeApi, _impatient: None) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def begin(**options: Any) -> Driver:
        drivers.append(Driver(server, **options))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.executor.close()
