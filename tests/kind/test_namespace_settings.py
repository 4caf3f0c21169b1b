"""Shared settings of a namespace, on a real cluster."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kind.conftest import Namespace
from tests.support import write_flow

FLOW = """
class F(FlowSpec):
    @step(start=True, end=True)
    def only(self): print("ran")
"""


def _apply(namespace: Namespace, **data: str) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "k8sflow-settings"}, "data": data}
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def test_pods_have_the_options_of_the_namespace(namespace: Namespace, tmp_path: Path) -> None:
    """But for those that the person has set; and a mistake in them is reported before anything is created."""
    flow = write_flow(tmp_path, FLOW)
    _apply(namespace, kubernetes_labels="team=research", kubernetes_cpu="30m", kubernetes_memory="150M")
    done = namespace.run(flow, "--with", "kubernetes", K8SFLOW_KUBERNETES_CPU="20m")
    assert done.code == 0, done.text
    (job,) = namespace.objects("jobs", "k8sflow.dev/flow=F")
    assert job["metadata"]["labels"]["team"] == "research"
    requests = job["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert (requests["cpu"], requests["memory"]) == ("20m", "150M")
    _apply(namespace, kubernetes_qos="Best")
    wrong = namespace.run(flow, "--with", "kubernetes")
    assert wrong.code == 1
    assert f"the ConfigMap k8sflow-settings in namespace '{namespace.name}'" in wrong.text
    assert "kubernetes_qos" in wrong.text
    assert len(namespace.objects("jobs", "k8sflow.dev/flow=F")) == 1
