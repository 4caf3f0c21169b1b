"""``resume``: results of an earlier run are taken over, even if the code changed since; the rest runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from k8sflow.client import Run
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.support import flow_command, running, wait_for, write_flow

# Each task writes its name to a file outside of the store; the branch 3 fails until there is a file "fixed".
FLOW = """
import os
import re
from k8sflow import Config, Parameter, current
def mark():
    with open("ran", "a") as file:
        file.write(f"{current.step_name}/{current.task_id}\\n")
class F(FlowSpec):
    n = Parameter("n", default=4)
    limits = Config("limits", default_value={"high": 10})
    factor = 3
    @step
    def start(self):
        mark()
        self.items = list(range(self.n))
        self.next(self.work, foreach="items")
    @step
    def work(self):
        mark()
        print("item", self.input)
        if self.input == 3 and not os.path.exists("fixed"):
            raise ValueError("no luck")
        self.y = self.input * self.factor
        self.next(self.join)
    @step
    def join(self, inputs):
        mark()
        self.total = sum(i.y for i in inputs)
        self.next(self.end)
    @step
    def end(self):
        mark()
        print("total", self.total, self.limits.high, current.origin_run_id)
"""


def ran(folder: Path) -> list[str]:
    """List the tasks that have started since the last call."""
    file = folder / "ran"
    found = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def run_in(folder: Path, run: str) -> Run:
    """Open a run of F in a folder."""
    return Run(RunStore(FolderStore(str(folder / ".k8sflow")), "F", run))


@pytest.fixture(scope="module")
def _origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    file = write_flow(folder, FLOW)
    done = flow_command(
        file, "run", "--run-id", "r1", "--max-workers", "1", "--n", "4", "--config-value", "limits", '{"high": 77}'
    )
    assert done.returncode == 1
    assert re.search(r"to resume:   .*python.* resume --origin-run-id r1\n", done.stdout)
    assert "resume --origin-run-id r1" in done.stdout
    assert "logs r1/work/3" in done.stdout
    assert ran(folder) == ["start/0", "work/0", "work/1", "work/2", "work/3"]
    return file


@pytest.fixture
def failed(_origin: Path, tmp_path: Path) -> Path:
    """Create a flow whose run ``r1`` has failed in one of four branches, when the others were done."""
    shutil.copytree(_origin.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / _origin.name


def test_the_failed_task_and_the_tasks_after_it_run(failed: Path) -> None:
    """They have the parameters and configs of the first run; the clones share its blobs and name their origin."""
    folder = failed.parent
    (folder / "fixed").touch()
    done = flow_command(failed, "resume", "--run-id", "r2", "--run-id-file", "id", "--tag", "again")
    assert done.returncode == 0, done.stderr
    assert sorted(ran(folder)) == ["end/0", "join/0", "work/3"]
    assert "total 18 77 r1" in done.stdout
    assert (folder / "id").read_text() == "r2\n"
    run = run_in(folder, "r2")
    assert run.origin_run_id == "r1"
    assert run.tags >= {"again"}
    assert run["work"]["0"].origin_pathspec == "F/r1/work/0"
    assert run["work"]["0"].stdout == "item 0\n", "its output is where it ran"
    assert run["work"]["3"].origin_pathspec is None
    assert run["work"]["3"].stdout == "item 3\n"
    assert [task.data.y for task in run["work"]] == [9, 6, 3, 0]
    assert not (folder / ".k8sflow/F/runs/r2/tasks/work/0/0").exists()


def test_a_dry_run_only_reports(failed: Path) -> None:
    """It lists the clones, the tasks that run again, and the reasons, for each step."""
    folder = failed.parent
    before = sorted(folder.rglob("*"))
    done = flow_command(failed, "resume", "--dry-run")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.stdout.startswith("Resuming F/r1, which failed (work/3 failed: ValueError: no luck):")
    assert lines[1] == ["start", "1", "cloned"]
    assert " ".join(lines[2]).startswith("work 3 cloned, 1 to run again: work/3 failed: ValueError: no luck")
    assert " ".join(lines[3]) == "join to run when it is reached"
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == before
    assert ran(folder) == []


@pytest.mark.slow
def test_a_resumed_run_can_be_resumed(failed: Path) -> None:
    """The latest run is the default, even if it was resumed; a clone of a clone names the first run."""
    folder = failed.parent
    assert flow_command(failed, "resume", "--run-id", "r2").returncode == 1
    assert ran(folder) == ["work/3"]
    (folder / "fixed").touch()
    third = flow_command(failed, "resume", "--run-id", "r3")
    assert third.returncode == 0, third.stderr
    assert "Resuming F/r2, which failed" in third.stdout
    assert "work/0" not in ran(folder)
    assert run_in(folder, "r3")["work"]["0"].origin_pathspec == "F/r1/work/0"
    again = flow_command(failed, "resume")
    assert again.returncode == 1
    assert "nothing to resume" in again.stderr
    assert ran(folder) == []


def test_a_resume_from_a_step_with_new_code(failed: Path) -> None:
    """A step that succeeded and all after it run; a constant that has changed is reported."""
    folder = failed.parent
    (folder / "fixed").touch()
    assert flow_command(failed, "resume", "--run-id", "r2").returncode == 0
    ran(folder)
    write_flow(
        folder, FLOW.replace("self.total = sum(", "self.total = 1000 + sum(").replace("factor = 3", "factor = 5")
    )
    done = flow_command(failed, "resume", "join")
    assert done.returncode == 0, done.stderr
    assert ran(folder) == ["join/0", "end/0"]
    assert "total 1018" in done.stdout
    assert "The constant factor has changed" in done.stdout


@pytest.mark.slow
def test_a_new_step_runs_on_the_artifacts_before_it(failed: Path) -> None:
    """Finished branches lead to it, although their next step was another one."""
    folder = failed.parent
    (folder / "fixed").touch()
    new = """    @step
    def double(self):
        mark()
        self.y *= 2
        self.next(self.join)
    @step
    def join(self"""
    write_flow(
        folder,
        FLOW.replace("self.next(self.join)", "self.next(self.double)").replace("    @step\n    def join(self", new),
    )
    done = flow_command(failed, "resume")
    assert done.returncode == 0, done.stderr
    assert "total 36" in done.stdout
    assert sorted(ran(folder)) == sorted([*(f"double/{i}" for i in range(4)), "work/3", "join/0", "end/0"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nostep"], "has no step 'nostep'"),
        (["wrok"], "Did you mean 'work'?"),
        (["--origin-run-id", "r7"], "there is no run F/r7"),
        (["--origin-run-id", "G/r1"], "'G/r1' names no run of this file's flow, F"),
        (["--n", "7"], "the parameter n can't be given to resume"),
        (["--run-id", "r1"], "exists already"),
        (["--run-id", "Ä"], "can't be a run's id"),
    ],
)
def test_a_mistake_is_reported_before_anything_runs(failed: Path, arguments: list[str], message: str) -> None:
    """The message has one line, and advice."""
    done = flow_command(failed, "resume", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert ran(failed.parent) == []
    assert [path.name for path in (failed.parent / ".k8sflow/F/runs").iterdir()] == ["r1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tag", "a\nb"], "can't be a tag"),
        (["--with", "nosuch"], "there is no decorator 'nosuch'"),
        (["--run-id", "R"], "'R' can't be a run's id"),
        (["--run-id", "r1"], "the run F/r1 exists already"),
        (["--run-id-file", "no/where"], "there is no folder"),
    ],
)
def test_a_dry_run_reports_why_the_run_would_be_refused(failed: Path, arguments: list[str], message: str) -> None:
    """It does so before it shows a plan that can't be carried out."""
    done = flow_command(failed, "resume", "--dry-run", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stdout == ""


def test_the_new_run_has_its_own_namespace(failed: Path) -> None:
    """resume has the same option as run; its tasks look for runs there."""
    assert flow_command(failed, "resume", "--namespace", "team", "--run-id", "r2", cwd=failed.parent).returncode == 1
    assert run_in(failed.parent, "r2").record.namespace == "team"


def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path) -> None:
    """The message says what to do instead."""
    done = flow_command(write_flow(tmp_path, FLOW), "resume")
    assert done.returncode == 1
    assert "there is no run of F yet" in done.stderr


@pytest.mark.slow
def test_a_new_parameter_comes_from_the_command_line(failed: Path) -> None:
    """The original run can't have it; the other parameters are not read from the environment."""
    folder = failed.parent
    (folder / "fixed").touch()
    source = FLOW.replace("    factor = 3", '    plus = Parameter("plus", required=True, type=int)\n    factor = 3')
    write_flow(folder, source.replace("self.total = sum(", "self.total = self.plus + sum("))
    missing = flow_command(failed, "resume")
    assert missing.returncode == 1
    assert "'plus' is required" in missing.stderr
    done = flow_command(failed, "resume", "--plus", "100", K8SFLOW_RUN_N="1")
    assert done.returncode == 0, done.stderr
    assert "total 118" in done.stdout


def test_a_run_with_a_driver_is_not_resumed(tmp_path: Path) -> None:
    """The same things would run twice."""
    file = write_flow(tmp_path, FLOW.replace('print("item", self.input)', 'open("go").read()'))
    os.mkfifo(tmp_path / "go")
    with running(file, "--run-id", "r1"):
        wait_for(lambda: "work" in (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else "")
        done = flow_command(file, "resume")
    assert done.returncode == 1
    assert "F/r1 is not over" in done.stderr
    assert "attach r1" in done.stderr


@pytest.mark.slow
def test_a_cancelled_run_is_resumed(tmp_path: Path) -> None:
    """After Ctrl-C the last lines have the command; the unfinished tasks run again."""
    file = write_flow(tmp_path, FLOW.replace("if self.input == 3 and", "while self.input and"))
    waiting = file.read_text().replace('raise ValueError("no luck")', 'open("go").read()')
    file.write_text(waiting)
    os.mkfifo(tmp_path / "go")
    with running(file, "--run-id", "r1", "--max-workers", "3") as process:
        wait_for((tmp_path / ".k8sflow/F/runs/r1/tasks/work/0/commit.json").exists)
        wait_for(lambda: (tmp_path / "ran").read_text().count("work") == 4)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"resume --origin-run-id r1" in output
    ran(tmp_path)
    (tmp_path / "fixed").touch()
    done = flow_command(file, "resume")
    assert done.returncode == 0, done.stderr
    assert "Resuming F/r1, which was cancelled" in done.stdout
    assert sorted(ran(tmp_path)) == ["end/0", "join/0", "work/1", "work/2", "work/3"]


def test_a_flow_with_mutators_is_resumed(tmp_path: Path) -> None:
    """They have the configs of the first run."""
    source = """
    import os
    from k8sflow import Config, FlowMutator
    class Twice(FlowMutator):
        def pre_mutate(self, flow):
            flow.add_parameter("times", Parameter("times", default=dict(flow.configs)["c"]["n"]))
    @Twice
    class F(FlowSpec):
        c = Config("c", default_value={"n": 1})
        @step
        def start(self): self.next(self.end)
        @step
        def end(self):
            assert os.path.exists("fixed")
            print("times", self.times)
    """
    file = write_flow(tmp_path, source)
    assert flow_command(file, "--config-value", "c", json.dumps({"n": 5}), "run").returncode == 1
    (tmp_path / "fixed").touch()
    done = flow_command(file, "resume")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "times 5" in done.stdout


@pytest.mark.slow
def test_a_foreach_that_is_too_wide_fails_until_the_limit_is_raised(tmp_path: Path) -> None:
    """The report has the width, the limit and advice; ``resume`` may raise the limit."""
    file = write_flow(tmp_path, FLOW)
    (tmp_path / "fixed").touch()
    done = flow_command(file, "run", "--max-num-splits", "3")
    assert done.returncode == 1
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if "foreach=" in text)
    assert f"step start of F ({file}:{line}) opens a foreach over 4 items of self.items" in done.stdout + done.stderr
    assert "--max-num-splits allows 3" in done.stdout + done.stderr
    assert "give --max-num-splits 4 to run or resume" in done.stdout + done.stderr
    assert ran(tmp_path) == ["start/0"]
    assert flow_command(file, "resume", "--max-num-splits", "4").returncode == 0
