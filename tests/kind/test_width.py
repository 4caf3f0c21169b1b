"""Many branches on a real cluster: as indices of a Job, and several in a pod."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.kind.conftest import Namespace

KUBERNETES = ("--with", "kubernetes")
SQUARES = [number**2 for number in range(12)]


def test_a_wide_foreach_survives_the_loss_of_a_pod_and_of_its_driver(
    namespace: Namespace, client: Callable[[str], Any]
) -> None:
    """One Indexed Job within the window, and one Job for the branches that run again; each result is there once.

    A pod is deleted, one branch fails the first time, and the driver is killed with -9 and followed by another.
    """
    run = f"wide-{namespace.name}"  # the bucket outlives the tests
    arguments = ("--max-workers", "4", "--run-id", run, "--seconds", "2", "--slow", "3", *KUBERNETES)
    driver = namespace.start("wide.py", *arguments, K8SFLOW_KUBERNETES_INDEXED_FROM="5")
    name = driver.seen(r"work/3\] started \(pod (\S+)")[1].split("(pod ")[1].split()[0]
    namespace.kubectl("delete", "pod", name, "--grace-period=1", "--wait=false")
    driver.seen(r"work/3\] .*run again")
    assert len(running(namespace, run)) <= 4
    driver.seen(r"work/5\] started")
    driver.kill()
    second = namespace.command("wide.py", "attach", run, K8SFLOW_KUBERNETES_INDEXED_FROM="5")
    assert second.wait(120).code == 0, second.text
    data = client(f"Wide/{run}")["end"].task.data
    assert data.squares == SQUARES
    jobs = namespace.objects("jobs", f"k8sflow.dev/run={run},k8sflow.dev/step=work")
    wide = [job for job in jobs if job["spec"].get("completionMode") == "Indexed"]
    assert [job["spec"]["completions"] for job in wide] == [12]
    assert wide[0]["metadata"]["annotations"]["k8sflow.dev/task"] == "0-11"
    assert {job["metadata"]["annotations"]["k8sflow.dev/attempt"] for job in jobs if job not in wide} == {"1"}
    assert len(set(data.pods)) == 12


def test_branches_that_share_a_pod_are_not_run_again_when_they_have_committed(
    namespace: Namespace, client: Callable[[str], Any]
) -> None:
    """Six branches in two pods: one branch fails the first time, and a pod is deleted after its first commit."""
    done = namespace.start("wide.py", "--width", "6", "--seconds", "3", "--with", "kubernetes:branches_per_pod=3")
    done.seen(r"work/0\] done")
    name = done.seen(r"work/0\] started \(pod (\S+)")[1].split("(pod ")[1].split()[0]
    namespace.kubectl("delete", "pod", name, "--grace-period=4", "--wait=false")
    assert done.wait(120).code == 0, done.text
    run = client(done.run)
    data = run["end"].task.data
    assert data.squares == SQUARES[:6]
    attempts = {int(task.id): task.current_attempt for task in run["work"]}
    assert attempts[0] == 0
    assert attempts[2] > 0
    assert [attempts[branch] for branch in (3, 4, 5)] == [0, 0, 0]
    assert data.pods[0] == name != data.pods[2]
    assert len(set(data.pods[3:])) == 1


KILL = "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"


def test_a_branch_waits_for_its_turn_and_the_death_of_what_starts_it_costs_nothing(namespace: Namespace) -> None:
    """The process between the agent and the branches is killed, as by a node that is short of memory."""
    run = f"turn-{namespace.name}"
    options = ("--with", "kubernetes:branches_per_pod=3,branches_at_a_time=1")
    driver = namespace.start("wide.py", "--run-id", run, "--width", "3", "--seconds", "60", "--later", "0", *options)
    pod = driver.seen(r"work/0\] started \(pod (\S+)")[1].split("(pod ")[1].split()[0]
    waiting = namespace.command("wide.py", "kubernetes", "logs", f"{run}/work/2").wait(60)
    assert waiting.code == 0, waiting.text
    assert f"work/2 waits for its turn in pod {pod}, which it shares with other branches: work/0-2." in waiting.text
    namespace.kubectl("exec", pod, "-c", "task", "--", "python3", "-c", KILL)
    driver.seen(r"work/0\] the process that runs the branches of its pod was killed externally .*costs no retry")
    done = driver.wait(180)
    assert done.code == 0, done.text


def running(namespace: Namespace, run: str) -> list[str]:
    """The live pods of a run."""
    pods = namespace.objects("pods", f"k8sflow.dev/run={run}")
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in {"Pending", "Running"}]
