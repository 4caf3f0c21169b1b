"""Tasks that lose their pod in the middle of a commit: between their artifacts and their commit, or right after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.kind.conftest import Namespace
from tests.kind.proxy import commit_proxy
from tests.kind.test_faults import KUBERNETES, attempts
from tests.support import wait_for

DELETED, EVICTED, OUT_OF_MEMORY = ("work/0", "work/3"), ("work/1", "work/4"), ("work/2", "work/5")


def delete(namespace: Namespace, pod: str) -> None:
    namespace.kubectl("delete", "pod", pod, "--wait=false")


def evict(namespace: Namespace, pod: str) -> None:
    """Use the API that draining a node does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace.name}}
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


def run_out_of_memory(namespace: Namespace, pod: str) -> None:
    """Let a thread that the step has left take more memory than the container may have."""
    namespace.kubectl("exec", pod, "-c", "task", "--", "python3", "-c", "open('/tmp/eat', 'w').close()")


def running_pods(namespace: Namespace) -> dict[str, str]:
    """The names of the pods of the tasks that run."""
    found = {}
    for pod in namespace.objects("pods", "k8sflow.dev/flow=Saved"):
        notes = pod["metadata"]["annotations"]
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
            found[f"{notes['k8sflow.dev/step']}/{notes['k8sflow.dev/task']}"] = pod["metadata"]["name"]
    return found


def test_a_task_whose_pod_is_lost_in_the_middle_of_its_commit_has_one_result(
    namespace: Namespace, client: Callable[[str], Any]
) -> None:
    """Without a commit it runs again, and the commit of its first execution comes too late; else it is done (I3)."""
    faults = {DELETED: delete, EVICTED: evict, OUT_OF_MEMORY: run_out_of_memory}
    before, after = ({tasks[number] for tasks in faults} for number in (0, 1))
    with commit_proxy(namespace, before=before, after=after) as (proxy, url):
        running = namespace.start("saved.py", *KUBERNETES, K8SFLOW_IN_CLUSTER_ENDPOINT=url)
        proxy.wait_for(before | after)
        wait_for(lambda: before | after <= running_pods(namespace).keys(), 60)
        pods = running_pods(namespace)
        for tasks, fault in faults.items():
            for task in tasks:
                fault(namespace, pods[task])
        running.seen(r"\[work/0\] its pod was deleted externally; it is run again")
        running.seen(r"\[work/1\] waits: it was evicted")
        running.seen(r"\[work/2\] the task used more memory than its limit .* it is run again")
        proxy.released.set()
        done = running.wait(120)
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.total == sum(number**2 for number in range(6))
    assert done.text.count("run again (") + done.text.count("run again in") == len({DELETED, OUT_OF_MEMORY})
    again = {task: count for task, count in attempts(namespace, done.run).items() if count != 1}
    assert again == {DELETED[0]: 2, OUT_OF_MEMORY[0]: 2}, "an evicted pod's Job replaces it"
