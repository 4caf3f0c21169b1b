"""Runs survive the loss of a part of the cluster, for a while or for good."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kind.conftest import Namespace
from tests.kind.test_faults import KUBERNETES, attempts, signalled
from tests.kind.worker import remove, second_node
from tests.support import wait_for

MORE_SECONDS = 30  # after it was reported, which takes up to ten
_MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
_ASIDE = "/etc/kubernetes/kube-apiserver.yaml"


@contextmanager
def api_server_away(namespace: Namespace) -> Iterator[None]:
    """No API server while the block runs: it is killed, and the kubelet doesn't start it again."""
    kind = namespace.cluster.kind
    kind.in_node("sh", "-c", f"mv {_MANIFEST} {_ASIDE} && pkill -KILL --exact kube-apiserver", doing="kill it")
    try:
        yield
    finally:
        kind.in_node("mv", _ASIDE, _MANIFEST, doing="start the API server")
        kind.wait_ready(120)


@pytest.mark.destructive
def test_an_api_server_that_freezes_is_reported_while_tasks_only_compute(namespace: Namespace) -> None:
    """Its connections stay open, but it doesn't answer when it is asked for its version; no task runs twice."""
    running = namespace.start("fan.py", "--seconds", "25", "--width", "1", *KUBERNETES)
    running.seen(r"\[work/0\] tick 1$")
    with signalled(namespace, "kube-apiserver"):
        running.seen("API server .* has not answered a request for /version", 60)
    running.seen("The API server answers again, after", 60)
    done = running.wait(180)
    assert done.code == 0, done.text
    assert set(attempts(namespace, done.run).values()) == {1}


@pytest.mark.destructive
def test_a_run_survives_a_killed_api_server(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """Its absence is reported while tasks run, end and are to be started; no task runs twice (F5)."""
    running = namespace.start("fan.py", "--seconds", "10", "--width", "2", *KUBERNETES)
    running.seen(r"\[work/0\] tick 1$")
    running.seen(r"\[work/1\] tick 1$")
    with api_server_away(namespace):
        running.seen(r"API server .* (has not answered a request|can't serve requests|can't be reached)", 30)
        threading.Event().wait(MORE_SECONDS)
        assert running.process.poll() is None, running.text
    running.seen("The API server answers again, after", 60)
    done = running.wait(180)
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.total == 1
    assert set(attempts(namespace, done.run).values()) == {1}


@pytest.mark.destructive
def test_a_run_survives_the_removal_of_a_worker_node(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """Kubernetes finds its pods lost, and their Jobs run them on the other node; what had committed there counts."""
    with second_node(namespace) as worker:
        running = namespace.start("lost.py", *KUBERNETES)
        running.seen(r"\[work/0\] done$")
        for task in ("work/1", "work/2"):
            running.seen(rf"\[{task}\] on {worker}$")
        remove(namespace)
        running.seen(r"\[work/1\] waits: its node was lost", 150)
        running.seen(r"\[work/1\]   Kubernetes starts it again in another pod")
        done = running.wait(120)
        assert done.code == 0, done.text
        assert "the API server" not in done.text, "only the node doesn't answer"
        nodes = client(done.run)["end"].task.data.nodes
        assert nodes[0] == worker
        assert worker not in nodes[1:]
        assert set(attempts(namespace, done.run).values()) == {1}
        selector = f"k8sflow.dev/run={done.run.partition('/')[2]}"
        wait_for(lambda: worker not in {pod["spec"]["nodeName"] for pod in namespace.objects("pods", selector)}, 90)
