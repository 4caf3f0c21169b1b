"""The outcome that follows from an exception."""

from __future__ import annotations

import pytest

from k8sflow.errors import AccessError, ConfigurationError, OutageError, StorageError, UnreachableError
from k8sflow.flow.outcome import Outcome
from k8sflow.task.conventions import Surroundings
from k8sflow.task.failure import failure, never_reached


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


@pytest.mark.parametrize("around", [Surroundings.POD, Surroundings.JOB])
def test_a_bucket_out_of_reach_is_explained_where_it_matters(around: Surroundings) -> None:
    """On AWS Batch, nothing speaks of pods."""
    found = never_reached(UnreachableError("no answer"), around).explained
    texts = f"{found.summary} {found.detail} {found.resolution}"
    assert f"can't be reached from the {around.value}" in texts
    assert ("pod" in texts, "NAT gateway" in texts) == (around is Surroundings.POD, around is Surroundings.JOB)


def test_an_agent_knows_its_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BATCH_JOB_ID", "j1")
    assert Surroundings.of_agent() is Surroundings.JOB
    monkeypatch.delenv("AWS_BATCH_JOB_ID")
    assert Surroundings.of_agent() is Surroundings.POD
