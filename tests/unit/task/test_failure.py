"""The outcome that follows from an exception."""

from __future__ import annotations

import pytest

from k8sflow.errors import AccessError, ConfigurationError, OutageError, StorageError
from k8sflow.flow.outcome import Outcome
from k8sflow.task.failure import failure


@pytest.mark.parametrize(
    ("error", "outcome", "is_final"),
    [
        (AccessError("the keys are refused"), Outcome.STORAGE_ERROR, True),
        (StorageError("damaged"), Outcome.STORAGE_ERROR, True),
        (OutageError("away"), Outcome.STORAGE_ERROR, False),
        (ConfigurationError("raised by a step"), Outcome.USER_ERROR, False),
        (ValueError("raised by a step"), Outcome.USER_ERROR, False),
    ],
)
def test_what_the_store_refuses_is_not_charged_to_the_user(error: Exception, outcome: Outcome, is_final: bool) -> None:
    """The step can do nothing about refused keys."""
    found = failure(error)
    assert found.outcome is outcome
    assert found.failure is not None
    assert found.failure.is_final is is_final
