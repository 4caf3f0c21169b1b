"""The guarantees of every executor: add yours to the fixture ``executor``.

The class that CONTRIBUTING.md shows is tested with the others. Kubernetes and AWS Batch have tests of their own in this
folder, against scripted servers, and in ``tests/kind`` and ``tests/batch``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from k8sflow.config import Settings
from k8sflow.executors.base import Executor, Finished, Started, TaskEvent
from k8sflow.executors.by_name import LOCAL, make
from k8sflow.executors.context import RunContext
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.inprocess import runner_of
from tests.support import load_flow, wait_for, write_flow

PAGE = Path(__file__).parents[3] / "CONTRIBUTING.md"
FLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            self.items = ["a", "b", "fails", "waits"]
            self.next(self.branch, foreach="items")
        @step
        def branch(self):
            import os, time
            with open(f"began-{self.input}", "w") as file:
                file.write(str(os.getpid()))
            if self.input == "fails":
                raise ValueError("it fails")
            while self.input == "waits" and not os.path.exists("go"):
                time.sleep(0.05)
            self.value = self.input
            self.next(self.join)
        @step
        def join(self, inputs):
            self.next(self.end)
        @step
        def end(self):
            pass
"""
START = TaskSpec("F", "r1", TaskName("start"))


def branch(index: int, attempt: int = 0) -> TaskSpec:
    """The task of a branch."""
    return TaskSpec("F", "r1", TaskName("branch", (index,)), attempt, (TaskInput("start", ()),))


@dataclass
class Running:
    """An executor under test, and what it has reported."""

    executor: Executor
    run_store: RunStore
    reported: list[TaskEvent | Exception] = field(default_factory=list)

    def of(self, task: TaskSpec) -> list[Any]:
        """The events of a task."""
        return [event for event in self.reported if getattr(event, "task", None) == task]

    def end_of(self, task: TaskSpec) -> Finished:
        """The end of a task, once it is reported."""
        found = wait_for(lambda: next((event for event in self.of(task) if isinstance(event, Finished)), None))
        assert isinstance(found, Finished)
        return found


@pytest.fixture(params=[LOCAL, "of the page"])
def executor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Each kind of executor, after the first step of a run; a test of one has to pass with the others."""
    monkeypatch.chdir(tmp_path)
    runner = runner_of(load_flow(write_flow(tmp_path, FLOW)), tmp_path)
    reported: list[TaskEvent | Exception] = []
    context = RunContext(reported.append, runner.record, runner.run_store, Settings(), definition=runner.definition)
    made = make(LOCAL, context) if request.param == LOCAL else of_the_page(context)
    running = Running(made, runner.run_store, reported)
    made.submit([START])
    assert running.end_of(START).result.outcome is Outcome.SUCCEEDED
    yield running
    (tmp_path / "go").touch()
    made.close()


def of_the_page(context: RunContext) -> Executor:
    """The executor that CONTRIBUTING.md shows."""
    (source,) = re.findall(r"^```python\n# one_by_one\.py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, "one_by_one.py", "exec"), names)
    made: Executor = names["OneByOneExecutor"](context)
    return made


def test_each_task_ends_once_and_that_is_its_last_event(executor: Running) -> None:
    """Also when several become ready together; each leaves its result in the store before."""
    tasks = [branch(0), branch(1)]
    executor.executor.submit(tasks)
    for task in tasks:
        assert executor.end_of(task).result.outcome is Outcome.SUCCEEDED
        assert executor.run_store.read_commit("branch", task.name.id) is not None
    for task in [START, *tasks]:
        kinds = [type(event) for event in executor.of(task)]
        assert kinds.count(Finished) == kinds.count(Started) == 1
        assert kinds[-1] is Finished


def test_a_failure_of_the_step_is_the_users(executor: Running) -> None:
    """With the error's text; the other tasks go on."""
    executor.executor.submit([branch(2), branch(0)])
    result = executor.end_of(branch(2)).result
    assert result.outcome is Outcome.USER_ERROR
    assert result.failure is not None
    assert "it fails" in f"{result.failure.summary} {result.failure.detail}"
    assert executor.end_of(branch(0)).result.outcome is Outcome.SUCCEEDED


def test_a_task_that_is_submitted_again_has_the_result_of_its_commit(executor: Running) -> None:
    """A driver that takes over may submit what has a result already; the first commit counts."""
    executor.executor.submit([branch(0)])
    executor.end_of(branch(0))
    before = executor.run_store.read_commit("branch", "0")
    executor.executor.submit([branch(0, attempt=1)])
    assert executor.end_of(branch(0, attempt=1)).result.outcome is Outcome.SUCCEEDED
    assert executor.run_store.read_commit("branch", "0") == before


def test_submit_does_not_wait_and_cancel_ends_what_runs(executor: Running, tmp_path: Path) -> None:
    """A task in a process is killed; one in a thread, which can't be, has ended when ``cancel`` returns."""
    executor.executor.submit([branch(3)])
    pid = int(wait_for(lambda: (tmp_path / "began-waits").exists() and (tmp_path / "began-waits").read_text()))
    if pid == os.getpid():
        (tmp_path / "go").touch()
    executor.executor.cancel()
    if pid == os.getpid():
        assert executor.run_store.read_commit("branch", "3") is not None
    else:
        assert not Path(f"/proc/{pid}").exists()
        assert executor.run_store.read_commit("branch", "3") is None
