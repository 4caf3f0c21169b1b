"""An executor against a scripted AWS Batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.executors.batch_driver import Driver
from tests.unit.executors.fake_batch import FakeBatch


@pytest.fixture
def server() -> FakeBatch:
    """AWS Batch, whose jobs have the states that a test sets."""
    return FakeBatch()


@pytest.fixture
def driver(server: FakeBatch) -> Iterator[Driver]:
    """A driver of one run."""
    found = Driver(server)
    yield found
    found.executor.close()
