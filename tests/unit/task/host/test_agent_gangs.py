"""Processes that run together, each in a pod of its own: how they find each other."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from k8sflow.flow.outcome import Outcome
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.inprocess import runner_of
from tests.support import load_flow, write_flow
from tests.unit.task.host.agent_runs import MAIN, ended, start_agent


def test_processes_in_pods_know_where_the_first_is(tmp_path: Path) -> None:
    """By current.parallel and the variables of training libraries; each has its machine for itself."""
    body = (
        "self.seen = [os.environ[name] for name in ('MASTER_ADDR', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'PET_NNODES')]"
    )
    result, output, _ = _together(tmp_path, body, "127.0.0.%d")
    assert result.outcome is Outcome.SUCCEEDED
    assert output["stdout"] == b"['127.0.0.0', '1', '2', '0', '2']\n"


@pytest.mark.parametrize(("variables", "processes"), [({"K8SFLOW_GPUS": "4"}, b"4"), ({}, b"None")])
def test_torchrun_starts_a_process_for_each_gpu_of_a_pod(
    tmp_path: Path, variables: dict[str, str], processes: bytes
) -> None:
    """Without GPUs the variable is not set: torchrun starts one process then."""
    body = "self.seen = os.environ.get('PET_NPROC_PER_NODE')"
    _, output, _ = _together(tmp_path, body, "127.0.0.%d", **variables)
    assert output["stdout"] == processes + b"\n"


def test_a_process_without_its_peers_does_not_start(tmp_path: Path) -> None:
    """The failure names them; the driver, which may know why they have no pod, records it."""
    result, output, runner = _together(tmp_path, "self.seen = []", "no-such-host-%d.invalid")
    assert result.outcome is Outcome.NEVER_STARTED
    assert result.failure is not None
    assert "train/0, train/1" in result.failure.summary
    assert output["stdout"] == b""
    assert runner.run_store.read_outcome("train", "1", 0) is None


def _together(folder: Path, body: str, peers: str, **variables: str) -> tuple[TaskResult, dict[str, bytes], TaskRunner]:
    """The second of two processes that run together, in a pod whose peers have such host names."""
    source = f"""
        import os
        from k8sflow import parallel
        class F(FlowSpec):
            @step
            def start(self): self.next(self.train, num_parallel=2)
            @parallel
            @step
            def train(self):
                {body}
                print(self.seen)
                self.next(self.join)
            @step
            def join(self, inputs): self.next(self.end)
            @step
            def end(self): pass
    """
    code = folder / "code"
    runner = runner_of(load_flow(write_flow(code, source)), folder)
    made = package.build(code)
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    assert runner.run(TaskSpec("F", "r1", TaskName("start"))).outcome is Outcome.SUCCEEDED
    spec = TaskSpec("F", "r1", TaskName("train", (1,)), 0, (TaskInput("start", ()),), 2)
    options = [f"--store={runner.store.url}", "--flow=F", f"--package={made.sha256}", "--file=flow.py"]
    options += [f"--peers={peers}", "--peers-timeout=0"]
    command = [sys.executable, "-c", textwrap.dedent(MAIN), spec.to_json(), *options]
    _, result, output = ended(folder, start_agent(folder, command, **variables))
    return result, output, runner
