"""A run in a queue of Kueue, with Kueue's own controller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import kueue
from tests.kind.conftest import Namespace

QUEUES = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: NAME}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: NAME}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [cpu, memory]
    flavors:
    - name: NAME
      resources: [{name: cpu, nominalQuota: 0}, {name: memory, nominalQuota: 1Gi}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: team}
spec: {clusterQueue: NAME}
"""


@pytest.fixture
def queue(namespace: Namespace, tmp_path: Path) -> Iterator[str]:
    """The name of a ClusterQueue without cores, whose LocalQueue in the namespace is ``team``."""
    with kueue.running(namespace.cluster, tmp_path):
        namespace.kubectl("apply", "-f", "-", stdin=QUEUES.replace("NAME", namespace.name))
        namespace.kubectl("wait", "--for=condition=Active", f"clusterqueue/{namespace.name}", "--timeout=60s")
        yield namespace.name
        namespace.kubectl("delete", "jobs", "--all")
        namespace.kubectl(
            "delete", "localqueue/team", f"clusterqueue/{namespace.name}", f"resourceflavor/{namespace.name}"
        )


def test_a_run_waits_for_its_turn_in_a_queue(namespace: Namespace, queue: str) -> None:
    """And for another one when the queue takes its turn away, without a second attempt."""
    namespace.kubectl("create", "configmap", "gate", "--from-literal=GATE=closed")
    terminal = namespace.start("queued.py")
    terminal.seen("waits: its Job waits in the queue 'team': .*insufficient quota for cpu")
    cores = {"op": "replace", "path": "/spec/resourceGroups/0/flavors/0/resources/0/nominalQuota", "value": "1"}
    namespace.kubectl("patch", "clusterqueue", queue, "--type=json", "-p", json.dumps([cores]))
    terminal.seen("started")
    namespace.kubectl("patch", "clusterqueue", queue, "--type=merge", "-p", '{"spec": {"stopPolicy": "HoldAndDrain"}}')
    terminal.seen("waits in the queue 'team': .*inactive")
    namespace.kubectl("patch", "configmap", "gate", "--type=merge", "-p", '{"data": {"GATE": "open"}}')
    namespace.kubectl("patch", "clusterqueue", queue, "--type=merge", "-p", '{"spec": {"stopPolicy": "None"}}')
    done = terminal.wait(60)
    assert done.code == 0, done.text
    assert done.text.count("started (pod ") == 2, done.text
    (job,) = namespace.objects("jobs", "k8sflow.dev/flow=Queued")
    assert job["metadata"]["annotations"]["k8sflow.dev/attempt"] == "0"
