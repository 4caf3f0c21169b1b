"""Calls that a server denies after it has answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8sflow.errors import AccessError, OutageError
from k8sflow.storage import patience as patience_module
from k8sflow.storage.patience import Patience, patient


class Store:
    """Calls end as listed, one after the other."""

    def __init__(self, *ends: Exception | str) -> None:
        self.patience = Patience(30)
        self.calls = 0
        self._ends: Iterator[Exception | str] = iter(ends)

    @patient
    def get(self) -> str:
        self.calls += 1
        end = next(self._ends)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "_DENIED_PAUSES_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(patience_module, "_FIRST_DENIED_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(patience_module, "_FIRST_PAUSE_SECONDS", 0.0)


def denied() -> AccessError:
    return AccessError("denied.", advice="Check the keys.")


def test_a_server_that_denies_access_for_a_moment_is_asked_again() -> None:
    store = Store("a", denied(), denied(), denied(), "b", denied(), "c")
    assert [store.get(), store.get(), store.get()] == ["a", "b", "c"]


def test_a_denial_that_stays_is_reported_and_later_calls_do_not_wait() -> None:
    store = Store("a", *(denied() for _ in range(6)), "b", denied(), "c")
    store.get()
    with pytest.raises(AccessError):
        store.get()
    assert store.calls == 5
    with pytest.raises(AccessError):
        store.get()
    assert store.calls == 6
    with pytest.raises(AccessError):
        store.get()
    assert [store.get(), store.get()] == ["b", "c"]


def test_the_first_call_of_a_process_is_tried_again_too() -> None:
    """Tasks are new processes, of a run that has access; but wrong keys are reported soon."""
    assert Store(denied(), denied(), "a").get() == "a"
    store = Store(*(denied() for _ in range(4)), "a")
    for calls in (3, 4):
        with pytest.raises(AccessError):
            store.get()
        assert store.calls == calls
    assert store.get() == "a"


def test_a_denial_during_an_outage_is_tried_again() -> None:
    """A server that was restarted may deny everything until it has read its users."""
    store = Store("a", OutageError("no answer."), denied(), OutageError("no answer."), denied(), "b")
    assert [store.get(), store.get()] == ["a", "b"]


def test_an_outage_between_denials_is_waited_for() -> None:
    store = Store("a", denied(), OutageError("no answer."), OutageError("no answer."), "b")
    assert [store.get(), store.get()] == ["a", "b"]
