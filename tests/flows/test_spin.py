"""``spin``: one task runs again, on artifacts of an earlier run, and isn't among the runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from k8sflow.client import Flow, Run, Task
from tests.flows.test_resume import ran
from tests.support import flow_command, write_flow

FLOW = """
from k8sflow import Parameter, current, parallel
def mark():
    with open("ran", "a") as file:
        file.write(f"{current.step_name}/{current.task_id}\\n")
class F(FlowSpec):
    n = Parameter("n", default=3)
    factor = 1
    @step
    def start(self):
        mark()
        self.items = [[i, i + 1] for i in range(self.n)]
        self.next(self.outer, foreach="items")
    @step
    def outer(self):
        mark()
        self.inner = self.input
        self.turns = 0
        self.next(self.again)
    @step
    def again(self):
        mark()
        self.turns += 1
        self.more = self.turns < 3
        self.next({True: self.again, False: self.split}, condition="more")
    @step
    def split(self):
        self.next(self.work, foreach="inner")
    @step
    def work(self):
        mark()
        print("works on", self.input)
        assert self.input != 2
        self.y = self.input * self.factor
        self.next(self.collect)
    @step
    def collect(self, inputs):
        mark()
        self.ys = [i.y for i in inputs]
        self.big = "x" * 100_000
        self.next(self.join)
    @step
    def join(self, inputs):
        mark()
        self.total = sum(sum(i.ys) for i in inputs)
        self.next(self.train, num_parallel=2)
    @parallel
    @step
    def train(self):
        self.next(self.together)
    @step
    def together(self, inputs):
        self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a flow with a successful run, ``good``, and a later one, ``bad``, which has failed in one branch."""
    folder = tmp_path_factory.mktemp("spin")
    file = write_flow(folder, FLOW)
    assert flow_command(file, "run", "--run-id", "good", "--n", "1").returncode == 0
    assert flow_command(file, "run", "--run-id", "bad", "--n", "3", "--max-workers", "1").returncode == 1
    return file


@pytest.fixture
def file(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the flow as it was when its runs were started."""
    write_flow(runs.parent, FLOW)
    monkeypatch.chdir(runs.parent)
    ran(runs.parent)
    return runs


def _result(output: str) -> Run:
    found = re.search(r'k8sflow\.Run\("(F/spins/[0-9-]+)"\)', output)
    assert found is not None, output
    return Run(found[1])


def test_the_failed_task_runs_again_with_new_code(file: Path) -> None:
    """The latest run's is the default; its artifacts are shown and can be read, and no run has them."""
    known = [run.id for run in Flow("F")]
    write_flow(file.parent, FLOW.replace("assert self.input != 2", 'self.new = "fixed"'))
    done = flow_command(file, "spin", "work")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(file.parent) in (["work/1.1"], ["work/2.0"])
    assert "works on 2" in done.stdout
    assert re.search(r"^  new +str +'fixed'$", done.stdout, re.MULTILINE)
    assert re.search(r"^  y +int +2$", done.stdout, re.MULTILINE)
    assert "inner" not in done.stdout, "its inputs are not its own artifacts"
    (task,) = _result(done.stdout)["work"]
    assert task.parent.parent.status == "succeeded"
    assert (task.data.y, task.data.inner[task.index]) == (2, 2)
    assert task.stdout == "works on 2\n"
    assert [run.id for run in Flow("F")] == known == ["bad", "good"]


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("good/work", "work/0.0"),
        ("good/work/0.1", "work/0.1"),
        ("F/good/work/0.1", "work/0.1"),
        ("work/1.0", "work/1.0"),
        ("good/start", "start/0"),
        ("good/again", "again/0"),
        ("good/again/0-2", "again/0-2"),
        ("good/collect", "collect/0"),
        ("good/join", "join/0"),
        ("good/end", None),
    ],
)
def test_any_task_of_any_run_can_run_again(file: Path, text: str, task: str | None) -> None:
    """Examples are a branch in branches, a turn of a loop, and a join."""
    done = flow_command(file, "spin", text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(file.parent) == [task] * (task is not None)
    if task is not None:
        step, name = task.split("/")
        assert _result(done.stdout)[step][name].successful


def test_a_join_sees_its_branches(file: Path) -> None:
    """It has all of them; a large artifact is shown by its size."""
    done = flow_command(file, "spin", "good/collect")
    assert re.search(r"^  ys +list +\[0, 1\]$", done.stdout, re.MULTILINE)
    assert re.search(r"^  big +str of 100\d\d\d bytes$", done.stdout, re.MULTILINE)
    (task,) = _result(done.stdout)["collect"]
    assert len(task.data.big) == 100_000


def test_a_failure_is_reported(file: Path) -> None:
    """It is reported like that of a run, with its exit code."""
    done = flow_command(file, "spin", "work")
    assert done.returncode == 1
    assert "AssertionError" in done.stdout
    assert "work/" in done.stdout
    assert re.search(r"^F/spins/[0-9-]+/work/[0-9.]+ failed \(user error\)", done.stdout, re.MULTILINE), done.stdout


def test_output_that_is_not_shown_is_found_by_the_code_that_the_task_prints(file: Path) -> None:
    """It names a task of the spin, which the command ``logs`` does not read."""
    write_flow(file.parent, FLOW.replace("self.items =", "print('x' * (65 << 20)); self.items =", 1))
    done = flow_command(file, "spin", "start")
    hint = re.search(r"but kept: (print\(k8sflow\.Task\(.*\)\.stdout\))", done.stdout)
    assert hint is not None, done.stdout[-500:]
    code = f"import k8sflow; text = {hint[1][len('print(') : -1]}; print(len(text))"
    read = subprocess.run([sys.executable, "-c", code], cwd=file.parent, capture_output=True, text=True, check=True)
    assert int(read.stdout) > 65 << 20


def test_a_program_can_read_which_task_runs(file: Path) -> None:
    """The id is in a file, even if the task fails; a file that can't be written is reported before anything runs."""
    assert flow_command(file, "spin", "work", "--pathspec-file", "it").returncode == 1
    task = Task((file.parent / "it").read_text().strip())
    assert (task.parent.id, task.successful, task.stdout) == ("work", False, "works on 2\n")
    assert task.parent.parent.status == "failed"
    ran(file.parent)
    done = flow_command(file, "spin", "work", "--pathspec-file", "no/it")
    assert done.returncode == 1
    assert "the task's pathspec can't be written to no/it: there is no folder" in done.stderr
    assert ran(file.parent) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrok", "Did you mean 'work'?"),
        ("good/wrok", "names no step"),
        ("good/work/7", "has no inputs for work/7"),
        ("bad/join", "has no inputs for the step join"),
        ("r9/work", "there is no run F/r9"),
        ("good/train", "one of 2 processes"),
        ("a/b/c/d", "neither a run of F nor a step of its latest run"),
    ],
)
def test_a_task_that_can_not_run_is_reported(file: Path, text: str, message: str) -> None:
    """Nothing runs."""
    done = flow_command(file, "spin", text)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert ran(file.parent) == []
