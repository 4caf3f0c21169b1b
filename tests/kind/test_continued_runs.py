"""Runs on the cluster continue: after their driver's death, after a failure, and after Ctrl-C at any moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kind.conftest import Namespace
from tests.kind.terminal import Terminal

KUBERNETES = ("--with", "kubernetes")
SQUARES = 1 + 4 + 9


def pods(namespace: Namespace, run: str) -> Counter[str]:
    """Count the pods of each step of a run; they are kept as long as their Jobs."""
    found = namespace.objects("pods", f"k8sflow.dev/run={run}")
    return Counter(pod["metadata"]["annotations"]["k8sflow.dev/step"] for pod in found)


def killed(namespace: Namespace, run: str, pattern: str) -> None:
    """Start a run, and kill its driver with -9 when a line is seen."""
    driver = namespace.start("detached.py", "--seconds", "4", "--run-id", run, *KUBERNETES)
    driver.seen(pattern)
    driver.kill()


@pytest.mark.parametrize(
    ("run", "moment"),
    [("first", r"start/0\] started"), ("between", r"work: 3 branches"), ("inside", r"work/1\] started")],
)
def test_another_driver_continues_after_kill_9(
    namespace: Namespace, client: Callable[[str], Any], run: str, moment: str
) -> None:
    """It takes over the running pods: none is started twice (I5). An attach in the meantime follows."""
    run = f"{run}-{namespace.name}"  # the bucket outlives the tests
    killed(namespace, run, moment)
    second = namespace.command("detached.py", "attach", run)
    second.seen(r"\[(start|work)/\d\] (started|done)|driven by")
    follower = namespace.command("detached.py", "attach", run)
    assert second.wait(120).code == 0, second.text
    assert follower.wait(60).code == 0, follower.text
    assert f"Detached/{run} is driven by process" in follower.text or "succeeded" in follower.text
    assert client(f"Detached/{run}")["end"].task.data.total == SQUARES
    assert pods(namespace, run) == {"start": 1, "work": 3, "meet": 1, "end": 1}


RESUMED = """
from k8sflow import FlowSpec, resources, step
class Resumed(FlowSpec):
    @resources(cpu=0.05, memory=150)
    @step
    def start(self):
        self.items = [1, 2]
        self.big = b"x" * 1_000_000
        self.next(self.work, foreach="items")
    @resources(cpu=0.05, memory=150)
    @step
    def work(self):
        assert self.input != {bad}, "not this one"
        self.length = len(self.big) * self.input
        self.next(self.join)
    @resources(cpu=0.05, memory=150)
    @step
    def join(self, inputs):
        self.lengths = [branch.length for branch in inputs]
        self.next(self.end)
    @resources(cpu=0.05, memory=150)
    @step
    def end(self): pass
if __name__ == "__main__":
    Resumed()
"""


def test_a_failed_run_is_resumed_with_fixed_code(
    namespace: Namespace, client: Callable[[str], Any], tmp_path: Path
) -> None:
    """Finished tasks are reused, and need no pod."""
    file = tmp_path / "resumed.py"
    file.write_text(RESUMED.format(bad=2))
    failed = namespace.run(file, *KUBERNETES)
    assert failed.code == 1
    assert "AssertionError: not this one" in failed.text
    assert "resume" in failed.text
    file.write_text(RESUMED.format(bad=0))
    done = namespace.command(file, "resume", *KUBERNETES).wait(120)
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.lengths == [1_000_000, 2_000_000]
    ran = pods(namespace, done.run.partition("/")[2])
    assert ran["start"] == 0
    assert ran["work"] in {1, 2}, "the branch that worked may have been cancelled before it was done"


def test_ctrl_c_at_any_moment_leaves_nothing_and_can_be_resumed(
    namespace: Namespace, client: Callable[[str], Any]
) -> None:
    """The moments are before the first Job, while it starts, while branches open, run and join, and at the end."""
    moments = [r"start/0\] started", r"start/0\] done", r"work/2\] started", r"meet/0\] started", r"end/0\] started"]
    runs: list[Terminal] = []
    for moment in moments:
        running = namespace.start("detached.py", "--seconds", "1", *KUBERNETES)
        running.seen(moment)
        running.interrupt()
        assert running.wait(60).code in {130, 0}, running.text
        runs.append(running)
        if running.code:
            run = running.run.partition("/")[2]
            assert "Traceback" not in running.text
            for kind in ("jobs", "pods", "configmaps"):
                assert namespace.objects(kind, f"k8sflow.dev/run={run}") == [], moment
    for running in runs[1:3]:
        run = running.run.partition("/")[2]
        done = namespace.command("detached.py", "resume", "--origin-run-id", run, *KUBERNETES).wait(120)
        assert done.code == 0, done.text
        assert client(done.run)["end"].task.data.total == SQUARES


def test_spin_runs_a_clusters_task_on_this_machine(namespace: Namespace) -> None:
    """It uses its original inputs, from the bucket."""
    done = namespace.run("detached.py", *KUBERNETES)
    assert done.code == 0, done.text
    run = done.run.partition("/")[2]
    spun = namespace.command("detached.py", "spin", f"{run}/meet", K8SFLOW_POD="here").wait(60)
    assert spun.code == 0, spun.text
    assert str(SQUARES) in spun.text
