"""``@environment``: variables of a step."""

from __future__ import annotations

import os

import pytest

from k8sflow import environment


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
