"""``attach``: a run whose driver is dead goes on, one whose driver lives is followed; never a second execution (I5)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flows.test_interrupts import ARGUMENTS
from tests.flows.test_resume import ran, run_in
from tests.support import flow_command, running, wait_for, wait_for_death, write_flow

# Three branches that print, wait until a file is there, and print again; each execution leaves its mark.
FLOW = """
import os, sys, time
from k8sflow import current
def tell():
    with open("ran", "a") as file:
        file.write(f"{current.step_name}/{current.task_id}:{current.retry_count}:{os.getpid()}\\n")
class F(FlowSpec):
    @step
    def start(self):
        tell()
        self.items = range(3)
        self.next(self.work, foreach="items")
    @step
    def work(self):
        print("begun", self.input)
        tell()
        while not os.path.exists("go"):
            time.sleep(0.01)
        print("ended", self.input, file=sys.stderr)
        if os.path.exists("fail"):
            raise ValueError("no luck")
        self.next(self.join)
    @step
    def join(self, inputs):
        tell()
        self.next(self.end)
    @step
    def end(self):
        tell()
        print("the end")
"""


def _in_the_middle(folder: Path) -> Callable[[], bool]:
    """Whether all three branches have begun, and said so."""

    def is_so() -> bool:
        return (folder / "ran").exists() and (folder / "ran").read_text().count("work") == 3

    return is_so


def _marks(folder: Path) -> list[str]:
    """Task and attempt of the executions that have begun since the last question."""
    return sorted(mark.rpartition(":")[0] for mark in ran(folder))


def test_a_run_whose_driver_was_killed_goes_on(tmp_path: Path) -> None:
    """Under new attempt numbers; what was done is not done again, and the old executions are gone before that."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        process.kill()
        process.wait()
    pids = [int(mark.rpartition(":")[2]) for mark in (tmp_path / "ran").read_text().split() if "work" in mark]
    assert all(wait_for_death(pid, 10) for pid in pids)
    assert _marks(tmp_path) == ["start/0:0", "work/0:0", "work/1:0", "work/2:0"]
    (tmp_path / "go").touch()
    done = flow_command(file, "attach", "r1")
    assert done.returncode == 0, done.stderr
    assert _marks(tmp_path) == ["end/0:0", "join/0:0", "work/0:1", "work/1:1", "work/2:1"]
    assert "F/r1 succeeded" in done.stdout
    assert run_in(tmp_path, "r1").successful
    assert run_in(tmp_path, "r1")["work"]["1"].current_attempt == 1


def test_whoever_comes_second_follows(tmp_path: Path) -> None:
    """It prints what the tasks print, ends with the run, and with its exit code; nothing runs twice."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        with running(file, "r1", command="attach") as follower:
            assert follower.stdout is not None
            first = follower.stdout.readline().decode()
            (tmp_path / "go").touch()
            assert process.wait(timeout=20) == 0
            output = follower.stdout.read().decode()  # communicate() would lose what was read ahead with the first line
            assert follower.wait(timeout=20) == 0
    assert first.startswith(f"F/r1 is driven by process {process.pid} on ")
    assert "1 of its tasks are done" in first
    for expected in ("[work/0] begun 0", "[work/2] ended 2", "[end/0] the end", "F/r1 succeeded at"):
        assert output.count(expected) == 1, output
    assert _marks(tmp_path) == ["end/0:0", "join/0:0", "start/0:0", "work/0:0", "work/1:0", "work/2:0"]


def test_a_follower_becomes_the_driver(tmp_path: Path) -> None:
    """When the one that it followed is killed; of several followers one does, and the others follow it."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        with (
            running(file, "r1", *ARGUMENTS, command="attach") as one,
            running(file, "F/r1", *ARGUMENTS, command="attach") as other,
        ):
            for follower in (one, other):
                assert follower.stdout is not None
                assert b"is driven by" in follower.stdout.readline()
            ran(tmp_path)
            process.kill()
            wait_for(_in_the_middle(tmp_path))
            (tmp_path / "go").touch()
            outputs = [follower.communicate(timeout=20)[0].decode() for follower in (one, other)]
            assert (one.returncode, other.returncode) == (0, 0)
    assert sum("Its driver is gone" in output for output in outputs) == 1
    assert _marks(tmp_path) == ["end/0:0", "join/0:0", "work/0:1", "work/1:1", "work/2:1"]


def test_ctrl_c_on_a_follower_leaves_the_run_alone(tmp_path: Path) -> None:
    """It goes on; the follower tells how to look again."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        with running(file, "r1", command="attach") as follower:
            assert follower.stdout is not None
            assert b"Ctrl-C leaves it alone" in follower.stdout.readline()
            follower.send_signal(signal.SIGINT)
            output = follower.communicate(timeout=10)[0].decode()
            assert follower.returncode == 130
        assert "F/r1 goes on" in output
        assert "attach r1" in output
        assert "Traceback" not in output
        assert process.poll() is None
        (tmp_path / "go").touch()
        assert process.wait(timeout=20) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "code"), [("succeeded", 0), ("failed", 1), ("was cancelled", 130)])
def test_a_run_that_is_over_is_told(tmp_path: Path, ending: str, code: int) -> None:
    """How it ended, with its exit code; and how to go on where it didn't succeed."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        if ending == "failed":
            (tmp_path / "fail").touch()
        if code == 130:
            process.send_signal(signal.SIGINT)
        else:
            (tmp_path / "go").touch()
        process.communicate(timeout=20)
    ran(tmp_path)
    done = flow_command(file, "attach", "r1")
    assert done.returncode == code
    assert f"F/r1 {ending} at" in done.stdout
    assert ("ValueError: no luck" in done.stdout) == (code == 1)
    assert ("resume --origin-run-id r1" in done.stdout) == (code != 0)
    assert ran(tmp_path) == []


def test_code_with_another_graph_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    """What to do instead is told."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        process.kill()
    ran(tmp_path)
    more = "self.next(self.more)\n    @step\n    def more(self):\n        self.next(self.end)"
    write_flow(tmp_path, FLOW.replace("self.next(self.end)", more))
    done = flow_command(file, "attach", "r1")
    assert done.returncode == 1
    assert "has another graph than when F/r1 was started" in done.stderr
    assert "resume --origin-run-id r1" in done.stderr
    assert ran(tmp_path) == []


@pytest.mark.slow
def test_what_a_task_leaves_behind_does_not_hold_the_run(tmp_path: Path) -> None:
    """A daemon that outlives its run, its driver and its fork server is none of them."""
    source = FLOW.replace(
        'print("begun", self.input)',
        "if self.input == 0 and os.fork() == 0:\n"
        "            os.setsid()\n"
        '            open("daemon", "w").write(str(os.getpid()))\n'
        "            time.sleep(60)",
    )
    file = write_flow(tmp_path, source)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        daemon = int(wait_for(lambda: (tmp_path / "daemon").exists() and (tmp_path / "daemon").read_text()))
        server = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        os.kill(server, signal.SIGSTOP)  # or it would end the daemon too
        process.kill()
        os.kill(server, signal.SIGKILL)
    try:
        (tmp_path / "go").touch()
        done = flow_command(file, "attach", "r1")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.slow
def test_a_clone_that_was_interrupted_is_completed(tmp_path: Path) -> None:
    """A driver that dies while it takes over results leaves a run that goes on with all of them."""
    file = write_flow(tmp_path, FLOW)
    (tmp_path / "go").touch()
    (tmp_path / "fail").touch()
    assert flow_command(file, "run", "--run-id", "r1", "--max-workers", "1").returncode == 1
    (tmp_path / "fail").unlink()
    assert flow_command(file, "resume", "--run-id", "r2").returncode == 0
    # As it was in the middle of the cloning: a part of the commits, and neither a mark nor anything of a driver.
    half = tmp_path / ".k8sflow/F/runs/r3"
    half.mkdir()
    record = (tmp_path / ".k8sflow/F/runs/r2/run.json").read_text()
    (half / "run.json").write_text(record.replace('"r2"', '"r3"').replace('"r1"', '"r2"').replace(
        '"origin_step":null', '"origin_step":"join"'))  # fmt: skip
    ran(tmp_path)
    done = flow_command(file, "attach", "r3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _marks(tmp_path) == ["end/0:0", "join/0:0"]
    assert run_in(tmp_path, "r3")["work"]["0"].origin_pathspec == "F/r2/work/0"


def test_without_rights_to_write_a_finished_run_is_told_all_the_same(tmp_path: Path) -> None:
    """Only who drives a run has to write."""
    file = write_flow(tmp_path, FLOW)
    (tmp_path / "go").touch()
    assert flow_command(file, "run", "--run-id", "r1").returncode == 0
    done = subprocess.run(["mount", "--bind", "-o", "ro", str(tmp_path), str(tmp_path)], check=False)
    assert done.returncode == 0, "this test mounts its folder read-only, as root"
    try:
        told = flow_command(file, "attach", "r1", PYTHONDONTWRITEBYTECODE="1")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert told.returncode == 0, told.stderr
    assert "F/r1 succeeded" in told.stdout
