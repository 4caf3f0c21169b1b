"""``@environment``: variables of a step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k8sflow import environment
from k8sflow.flow.decorators.base import Decoration
from k8sflow.flow.decorators.environment import variables_of
from k8sflow.flow.problems import Location


def test_a_pythonpath_is_joined_with_that_of_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's folder is first and the image's last, as in the agent; outside of a pod it is used as written."""
    (write,) = (found for found in [environment.around] if found is not None)
    monkeypatch.setenv("PYTHONPATH", "/opt/k8sflow:/users:/images")

    def seen(path: str) -> str:
        around = write("start", None, None, {"vars": {"PYTHONPATH": path}})
        next(around)
        found = os.environ["PYTHONPATH"]
        around.close()
        return found

    assert seen("/users") == "/users"
    monkeypatch.setenv("K8SFLOW_POD_PYTHONPATH", "/opt/k8sflow:/images")
    assert seen("/users:/more") == "/opt/k8sflow:/users:/more:/images"
    assert os.environ["PYTHONPATH"] == "/opt/k8sflow:/users:/images"


def test_a_variable_without_a_value_is_not_set() -> None:
    """``os.environ.get`` gives None for one that isn't set where the flow starts; flags and paths become texts."""
    written = {"TOKEN": None, "DEBUG": True, "DATA": Path("/data"), "SIZE": 3}
    found = variables_of([Decoration(environment, {"vars": written}, Location("flow.py"))])
    assert found == {"DEBUG": "True", "DATA": "/data", "SIZE": "3"}
