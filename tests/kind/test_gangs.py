"""A step of several processes as pods that find each other, fail together and run again together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.kind.conftest import Namespace


def test_processes_meet_fail_and_run_again_as_one(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """The sum over the network is that of all processes; the failure of one ends the others, which sleep."""
    done = namespace.run("gang.py", "--with", "kubernetes")
    assert done.code == 0, done.text
    failures = [line for _, line in done.lines if "] failed: " in line or line.endswith("] cancelled")]
    assert failures[0] == "[train/1] failed: user error"
    assert sorted(failures[1:]) == ["[train/0] cancelled", "[train/2] cancelled"]
    done.seen(r"\[train/1\] ConnectionError: the network is away; it is run again \(retry 1 of 1\)")
    data = client(done.run).data
    assert data.totals == [111, 111, 111]
    assert data.mains == 1
    jobs = [job["spec"] for job in namespace.objects("jobs", "k8sflow.dev/step=train")]
    assert [(job["completions"], job["completionMode"]) for job in jobs] == [(3, "Indexed")] * 2
    pods = Counter(pod["status"]["phase"] for pod in namespace.objects("pods", "k8sflow.dev/step=train"))
    assert pods == {"Failed": 1, "Succeeded": 3}, "the pod that failed can be looked at"
    (service,) = namespace.objects("services")
    (owner,) = service["metadata"]["ownerReferences"]
    assert owner["kind"] == "ConfigMap"
