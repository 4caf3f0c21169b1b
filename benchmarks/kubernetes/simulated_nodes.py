"""Nodes that kwok plays: a pod succeeds as soon as it is scheduled, with the message that a no-op task would leave.

API server, scheduler and Job controller are those of the test cluster. See https://kwok.sigs.k8s.io
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster

from k8sflow.flow.outcome import Outcome
from k8sflow.kubernetes.labels import STEP
from k8sflow.task.result import TaskResult, Transition

LABEL = {"k8sflow-bench/node": "simulated"}
TAINT = {"key": "k8sflow-bench/simulated", "value": "true", "effect": "NoSchedule"}
TOLERATION = {"key": TAINT["key"], "operator": "Exists"}
_NODES = 4
_SELECTOR = ",".join(f"{key}={value}" for key, value in LABEL.items())
# https://kwok.sigs.k8s.io/docs/user/stages-configuration/
_READY = """
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ Now | Quote }}
  lastTransitionTime: {{ Now | Quote }}
{{ end }}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
"""
_RUNNING = """
phase: Running
startTime: {{ Now | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  restartCount: 0
  state: {running: {startedAt: {{ Now | Quote }}}}
{{ end }}
"""
_SUCCEEDED = """
phase: Succeeded
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: false
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      reason: Completed
      message: MESSAGE
      startedAt: {{ Now | Quote }}
      finishedAt: {{ Now | Quote }}
{{ end }}
"""


@contextlib.contextmanager
def simulated_nodes(folder: Path, width: int) -> Iterator[None]:
    """Nodes with room for all pods, for the time of the context.

    Args:
        folder: For kwok's configuration and log.
        width: The number of branches that the step ``start`` opens.
    """
    config = folder / "kwok.yaml"
    config.write_text("\n---\n".join(json.dumps(stage) for stage in _stages(width)))
    nodes = {"apiVersion": "v1", "kind": "List", "items": [_node(f"simulated-{number}") for number in range(_NODES)]}
    with (folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(
            ["kwok", f"--config={config}", f"--manage-nodes-with-label-selector={_SELECTOR}", "--node-ip=127.0.0.1",
             "--node-lease-duration-seconds=40"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        cluster.kubectl("apply", "-f", "-", text=json.dumps(nodes))
        cluster.kubectl("wait", "--for=condition=Ready", "node", "-l", _SELECTOR, "--timeout=60s")
        yield
        _remove_pods()
    finally:
        cluster.kubectl("delete", "node", "-l", _SELECTOR)
        process.terminate()
        process.wait()


def _remove_pods() -> None:
    """Delete all Jobs with their pods, before the nodes that have to confirm the deletion."""
    cluster.remove_bare_jobs()
    cluster.kubectl("delete", "job", "-l", "k8sflow.dev/flow=Noops", "--wait=false")
    until = time.monotonic() + 600
    while time.monotonic() < until:
        names = [f"--field-selector=spec.nodeName=simulated-{number}" for number in range(_NODES)]
        if not any(cluster.kubectl("get", "pods", name, "-o", "name") for name in names):
            return
        time.sleep(2)


def _stages(width: int) -> Iterator[dict[str, Any]]:
    """Changes of a node and of a pod."""
    not_ready = _where('.status.conditions.[] | select( .type == "Ready" ) | .status', "NotIn", "True")
    yield _stage("Node", "ready", [not_ready], {"statusTemplate": _READY})
    transitions = {
        "start": Transition(("work",), width),
        "work": Transition(("join",)),
        "join": Transition(("end",)),
        "end": Transition(),
    }
    step = f'.metadata.labels["{STEP}"]'
    yield _stage("Pod", "running", [_where(".status.phase", "In", "Pending")], {"statusTemplate": _RUNNING})
    for name, transition in transitions.items():
        message = TaskResult(Outcome.SUCCEEDED, transition).to_termination_message()
        conditions = [_where(".status.phase", "In", "Running"), _where(step, "In", name)]
        yield _stage("Pod", f"succeeded-{name}", conditions, {"statusTemplate": _succeeded(message)})
    bare = [_where(".status.phase", "In", "Running"), _where(step, "NotIn", *transitions)]
    yield _stage("Pod", "succeeded-bare", bare, {"statusTemplate": _succeeded("")})
    yield _stage("Pod", "deleted", [], {"delete": True}, is_deleted=True)


def _succeeded(message: str) -> str:
    return _SUCCEEDED.replace("MESSAGE", json.dumps(message))


def _stage(
    kind: str, name: str, conditions: list[dict[str, Any]], then: dict[str, Any], *, is_deleted: bool = False
) -> dict[str, Any]:
    deleted = {"key": ".metadata.deletionTimestamp", "operator": "Exists" if is_deleted else "DoesNotExist"}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": f"{kind.lower()}-{name}"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": [deleted, *conditions]},
            "next": then,
        },
    }


def _where(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


def _node(name: str) -> dict[str, Any]:
    room = {"cpu": "1000", "memory": "4000Gi", "pods": "100000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**LABEL, "kubernetes.io/hostname": name}},
        "spec": {"taints": [TAINT]},
        "status": {"capacity": room, "allocatable": room},
    }
