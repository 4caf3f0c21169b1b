"""Pods that are taken away while their step may finish or save its state, and memory that grows, in one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.kind.conftest import Namespace

KUBERNETES = ("--with", "kubernetes")


def test_what_is_taken_away_finishes_or_continues(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """An evicted step finishes within its grace, a deleted one continues from its checkpoint, memory is doubled.

    None of it costs a retry. A run that is cancelled doesn't wait for the grace of ten minutes.
    """
    running = namespace.start("taken.py", *KUBERNETES)
    running.seen(r"\[finishes/0\] ready")
    pod = _pod(namespace, "finishes")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace.name}}
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    running.seen(r"\[saves/0\] ready")
    namespace.kubectl("delete", "pod", _pod(namespace, "saves"), "--wait=false")
    running.wait(60)
    assert running.code == 0, running.text
    running.seen(r"\[hungry/0\] .*it is run again with memory=200M \(this costs no retry\)")
    running.seen(r"\[hungry/0\] \[k8sflow\] attempt 2 has memory=300M")
    running.seen(r"\[finishes/0\] \[k8sflow\] the pod was sent SIGTERM: the step has 597 s")
    run = client(running.run)
    assert run.data.attempts == (2, 0)
    assert run.data.number == 42


def test_ctrl_c_does_not_wait_for_the_grace(namespace: Namespace) -> None:
    """The grace of ten minutes is for pods whose work continues elsewhere."""
    running = namespace.start("taken.py", *KUBERNETES)
    running.seen(r"\[finishes/0\] ready")
    running.interrupt()
    running.wait(30)
    assert running.code == 130, running.text
    assert namespace.objects("pods", f"k8sflow.dev/run={running.run.partition('/')[2]}") == []


def _pod(namespace: Namespace, step: str) -> str:
    (pod,) = namespace.objects("pods", f"k8sflow.dev/step={step}")
    name: str = pod["metadata"]["name"]
    return name
