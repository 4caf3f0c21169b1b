"""Detached runs from Python: the API server is a scripted one; the bucket and the commands are real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow import Deployer
from k8sflow.errors import FlowDefinitionError, KubernetesError, ParameterError, RunError
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import environment, write_flow
from tests.unit.controller.flowrun_api import FlowRunApi, flowrun_api_of_environment

FLOW = """
class F(FlowSpec):
    n = Parameter("n", default=1)
    @step
    def start(self): self.next(self.{next})
    @step
    def end(self): pass
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowRunApi]:
    """Start an API server with the controller's objects, which the environment names."""
    with flowrun_api_of_environment(tmp_path, monkeypatch) as running:
        running.put("serviceaccounts", {"metadata": {"name": "k8sflow-driver"}})
        running.put("namespaces", {"metadata": {"name": "lab"}})
        monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        yield running


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    return write_flow(tmp_path / "flow", FLOW.format(next="end"))


def test_only_a_flow_that_the_cluster_accepts_is_deployed(server: FlowRunApi, flow: Path, tmp_path: Path) -> None:
    """The flow needs to be without mistakes, and the cluster needs a controller."""
    assert "kubernetes:memory=800" in repr(Deployer(flow).kubernetes(memory=800).create())
    wrong = write_flow(tmp_path / "wrong", FLOW.format(next="ende"))
    with pytest.raises(FlowDefinitionError, match="can't be deployed") as raised:
        Deployer(wrong).kubernetes().create()
    assert "Did you mean 'end'" in raised.value.cause
    server.has_crd = False
    with pytest.raises(KubernetesError, match="has no FlowRuns"):
        Deployer(flow).kubernetes().create()
    with pytest.raises(RunError, match="there is no flow file"):
        Deployer(tmp_path / "nothing.py")


@pytest.mark.s3
def test_a_run_is_detached(
    server: FlowRunApi, s3_server: S3Server, flow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its parameters; its state is that of its FlowRun, which terminate() deletes."""
    for name, value in s3server.KEYS.items():
        monkeypatch.setenv(name, value)
    variables = {
        "K8SFLOW_BUCKET": f"{s3server.BUCKET}/deployed",
        "K8SFLOW_ENDPOINT": s3_server.endpoint,
        "K8SFLOW_IN_CLUSTER_ENDPOINT": "http://s3.example.com",
        "K8SFLOW_KUBERNETES_NAMESPACE": "lab",
    }
    server.first_status = {"phase": "Running"}
    deployed = Deployer(flow, show_output=False, env=variables, tags=["nightly"]).kubernetes(memory=800).create()
    triggered = deployed.trigger(n=3)
    assert len(server.names("flowruns")) == 1
    assert triggered.status == "Running"
    assert not triggered.run.finished
    assert triggered.run.tags >= {"nightly"}
    record = triggered._run_store.read()
    assert record.pods["start"].memory == "800M"
    assert record.decorators == ("kubernetes:memory=800",)
    assert triggered.terminate()
    assert server.names("flowruns") == []
    assert triggered.status is None
    assert not triggered.terminate()
    with pytest.raises((RunError, ParameterError), match="no run was started"):
        deployed.trigger(m=3)
