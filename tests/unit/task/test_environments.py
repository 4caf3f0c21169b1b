"""Advice about packages in the results of failed tasks."""

from __future__ import annotations

import sys

import pytest

import k8sflow
from k8sflow.environments.lock import Lock
from k8sflow.flow.outcome import Outcome
from k8sflow.task.environments import explained
from k8sflow.task.result import failed

TEXT = 'lock-version = "1.0"\n[[packages]]\nname = "shade"\nversion = "2"\n'
LOCKS = {"other": Lock(("shade",), "3.12", "linux", TEXT)}
ERROR = ModuleNotFoundError("No module named 'shade'", name="shade")


def test_a_missing_module_is_explained() -> None:
    found = explained(failed(Outcome.USER_ERROR, "no shade"), ERROR, "start", LOCKS)
    assert found.failure is not None
    assert "that of step other has shade 2" in found.failure.resolution


@pytest.mark.parametrize("text", ["not toml", ""])
def test_a_failure_stays_where_it_can_not_be_explained(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A pod with Python 3.10 has no parser of TOML."""
    if not text:
        monkeypatch.delattr(k8sflow, "toml", raising=False)
        monkeypatch.setitem(sys.modules, "k8sflow.toml", None)
    locks = {"other": Lock(("shade",), "3.12", "linux", text or TEXT)}
    result = failed(Outcome.USER_ERROR, "no shade")
    assert explained(result, ERROR, "start", locks) == result
