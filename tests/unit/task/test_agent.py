"""The agent of a task's pod, as a process of this machine with a store in a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from k8sflow.flow import graph as graphs
from k8sflow.flow.configs import ConfigValue
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord, RunStore
from k8sflow.task.framing import ResultLine, decode
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import DEADLINE_SECONDS, environment, load_flow, write_flow

SLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            import signal, subprocess, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", "1000"])
            time.sleep(1000)
            self.next(self.end)
        @step
        def end(self): pass
"""


def run_agent(
    folder: Path, source: str, *arguments: str, **values: object
) -> tuple[subprocess.CompletedProcess[bytes], RunStore]:
    """The agent on a flow's first task, and the records of its run."""
    file = write_flow(folder / "code", source)
    flow, store = load_flow(file), FolderStore(str(folder / "store"))
    code, saved = package.build(file.parent), ArtifactStore(store, "F")
    saved.save_blob(code.sha256, [code.archive])
    run_store = RunStore(store, "F", "r")
    fixed = {name: saved.save(value, name) for name, value in values.items()}
    run_store.create(RunRecord("F", "r", file.name, fixed, graphs.build(flow).to_document(), package=code.sha256))
    spec = TaskSpec("F", "r", TaskName("start"))
    (folder / "pod").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "k8sflow.task.agent", spec.to_json(), f"--store={store.url}", "--flow=F",
         f"--package={code.sha256}", f"--file={file.name}", *arguments],
        cwd=folder / "pod", env=environment(), capture_output=True, timeout=DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    return done, run_store


MUTATED = """
    from k8sflow import Config, FlowMutator, user_step_decorator
    @user_step_decorator
    def marked(step_name, flow, inputs=None, attributes=None):
        flow.mark = attributes["mark"]
        yield
    class everywhere(FlowMutator):
        def mutate(self, mutable_flow):
            for name, mutable_step in mutable_flow.steps:
                mutable_step.add_decorator(marked, deco_kwargs={"mark": mutable_flow.settings.mark})
    @everywhere
    class F(FlowSpec):
        settings = Config("settings", default_value={"mark": "default"})
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
"""


def test_a_pod_takes_the_configs_that_its_run_was_started_with(tmp_path: Path) -> None:
    """Its mutators and decorators are made from them; nobody gives it a command line."""
    done, run_store = run_agent(tmp_path, MUTATED, settings=ConfigValue({"mark": "given"}))
    assert done.returncode == 0, done.stdout + done.stderr
    commit = run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(run_store.store, "F").load(commit.artifacts["mark"], "mark") == "given"
    assert "settings" not in commit.artifacts


def test_a_task_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    """Also one that ignores SIGTERM; the agent tells timed_out, and writes it."""
    began = time.monotonic()
    done, run_store = run_agent(tmp_path, SLOW, "--timeout=1")
    assert time.monotonic() - began > 1
    assert done.returncode == 1, done.stderr
    line = decode(done.stdout.splitlines()[-1])
    assert isinstance(line, ResultLine)
    result = TaskResult.from_json(line.text)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.diagnosis is not None
    assert "timeout of 1 s" in result.diagnosis.summary
    outcome = run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "timed_out"
