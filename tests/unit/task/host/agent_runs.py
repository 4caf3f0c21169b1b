"""Runs of the agent in tests, as in a pod but with a folder for a bucket."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.host.framing import Piece, ResultLine, decode
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from tests.inprocess import runner_of
from tests.support import DEADLINE_SECONDS, environment, load_flow, write_flow

SOURCE = """
    import os, signal, subprocess, sys, time
    from tests.waiting import wait_for
    class F(FlowSpec):
        @step
        def start(self):
            {body}
            self.next(self.end)
        @step
        def end(self): pass
"""


# The agent's main in a process of its own, with a file in place of the pod's /dev/termination-log.
MAIN = """
    import sys
    from pathlib import Path
    from k8sflow.task.host import agent
    agent.TERMINATION_LOG = Path("termination-log")
    sys.exit(agent.main(sys.argv[1:]))
"""


def prepare(folder: Path, body: str) -> tuple[TaskRunner, list[str]]:
    """A run with an uploaded package, and the command of the start step's agent."""
    code = folder / "code"
    file = write_flow(code, SOURCE.format(body=body.replace("\n", "\n            ")))
    runner = runner_of(load_flow(file), folder)
    made = package.build(code)
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    spec = TaskSpec("F", "r1", TaskName("start"))
    options = [f"--store={runner.store.url}", "--flow=F", f"--package={made.sha256}", "--file=flow.py"]
    return runner, [sys.executable, "-c", textwrap.dedent(MAIN), spec.to_json(), *options]


def start_agent(folder: Path, command: list[str], **changes: str) -> subprocess.Popen[bytes]:
    work = folder / "work"
    work.mkdir()
    return subprocess.Popen(
        command, cwd=work, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(folder: Path, process: subprocess.Popen[bytes]) -> tuple[int, TaskResult, dict[str, bytes]]:
    """Exit code, result and output of an agent; the result in both places is the same."""
    shown, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert errors == b""
    output = {"stdout": b"", "stderr": b""}
    results = []
    for line in shown.splitlines():
        match decode(line):
            case Piece(stream, data):
                output[stream] += data
            case ResultLine(text):
                results.append(text)
    assert results == [(folder / "work/termination-log").read_text()]
    return process.returncode, TaskResult.from_json(results[0]), output


def run_body(folder: Path, body: str, **changes: str) -> tuple[int, TaskResult, dict[str, bytes]]:
    _, command = prepare(folder, body)
    return ended(folder, start_agent(folder, command, **changes))


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
    folder: Path,
    source: str,
    *arguments: str,
    policies: Mapping[str, StepPolicy] | None = None,
    **values: object,
) -> tuple[subprocess.CompletedProcess[bytes], RunStore]:
    """The agent on a flow's first task, and the records of its run."""
    file = write_flow(folder / "code", source)
    flow, store = load_flow(file), FolderStore(str(folder / "store"))
    code, saved = package.build(file.parent), ArtifactStore(store, "F")
    saved.save_blob(code.sha256, [code.archive])
    run_store = RunStore(store, "F", "r")
    fixed = {name: saved.save(value, name) for name, value in values.items()}
    record = RunRecord("F", "r", file.name, fixed, compile_flow(flow).graph, package=code.sha256)
    run_store.create(replace(record, policies=policies or {}))
    spec = TaskSpec("F", "r", TaskName("start"))
    (folder / "pod").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "k8sflow.task.host.agent", spec.to_json(), f"--store={store.url}", "--flow=F",
         f"--package={code.sha256}", f"--file={file.name}", *arguments],
        cwd=folder / "pod", env=environment(), capture_output=True, timeout=DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    return done, run_store
