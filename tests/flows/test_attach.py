"""``attach``: a run without a driver is continued, one with a driver is followed; no task runs twice (I5)."""

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

# Three branches that print, wait until a file exists, and print again; each execution writes a mark.
FLOW = """
import os, sys, time
from k8sflow import current
from tests.waiting import wait_for
def mark():
    with open("ran", "a") as file:
        file.write(f"{current.step_name}/{current.task_id}:{current.retry_count}:{os.getpid()}\\n")
class F(FlowSpec):
    @step
    def start(self):
        mark()
        self.items = range(3)
        self.next(self.work, foreach="items")
    @step
    def work(self):
        print("started", self.input)
        mark()
        wait_for(lambda: os.path.exists("go"))
        print("ended", self.input, file=sys.stderr)
        if os.path.exists("fail"):
            raise ValueError("no luck")
        self.next(self.join)
    @step
    def join(self, inputs):
        mark()
        self.next(self.end)
    @step
    def end(self):
        mark()
        print("the end")
"""


def _in_the_middle(folder: Path) -> Callable[[], bool]:
    """Return a condition: all three branches have started, and printed."""

    def is_so() -> bool:
        return (folder / "ran").exists() and (folder / "ran").read_text().count("work") == 3

    return is_so


def _marks(folder: Path) -> list[str]:
    """List task and attempt of the executions that have started since the last call."""
    return sorted(mark.rpartition(":")[0] for mark in ran(folder))


def test_a_run_whose_driver_was_killed_is_continued(tmp_path: Path) -> None:
    """New attempt numbers are used; finished tasks don't run again, and the old executions have ended before that."""
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


def test_a_second_driver_follows(tmp_path: Path) -> None:
    """It prints the output of the tasks, ends with the run, and has its exit code; no task runs twice."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        with running(file, "r1", command="attach") as follower:
            assert follower.stdout is not None
            first = follower.stdout.readline().decode()
            (tmp_path / "go").touch()
            assert process.wait(timeout=20) == 0
            # communicate() would lose data that was read ahead with the first line
            output = follower.stdout.read().decode()
            assert follower.wait(timeout=20) == 0
    assert first.startswith(f"F/r1 is driven by process {process.pid} on ")
    assert "1 of its tasks is done" in first
    for expected in ("[work/0] started 0", "[work/2] ended 2", "[end/0] the end", "F/r1 succeeded at"):
        assert output.count(expected) == 1, output
    assert _marks(tmp_path) == ["end/0:0", "join/0:0", "start/0:0", "work/0:0", "work/1:0", "work/2:0"]


def test_a_follower_becomes_the_driver(tmp_path: Path) -> None:
    """This happens when the driver is killed; one of several followers becomes it, and the others follow it."""
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
    assert sum("Its driver died" in output for output in outputs) == 1
    assert _marks(tmp_path) == ["end/0:0", "join/0:0", "work/0:1", "work/1:1", "work/2:1"]


def test_ctrl_c_on_a_follower_leaves_the_run_alone(tmp_path: Path) -> None:
    """The run continues; the follower says how to follow it again."""
    file = write_flow(tmp_path, FLOW)
    with running(file, "--run-id", "r1", *ARGUMENTS) as process:
        wait_for(_in_the_middle(tmp_path))
        with running(file, "r1", command="attach") as follower:
            assert follower.stdout is not None
            assert b"Ctrl-C leaves it alone" in follower.stdout.readline()
            follower.send_signal(signal.SIGINT)
            output = follower.communicate(timeout=10)[0].decode()
            assert follower.returncode == 130
        assert "F/r1 continues" in output
        assert "attach r1" in output
        assert "Traceback" not in output
        assert process.poll() is None
        (tmp_path / "go").touch()
        assert process.wait(timeout=20) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "code"), [("succeeded", 0), ("failed", 1), ("was cancelled", 130)])
def test_a_finished_run_is_reported(tmp_path: Path, ending: str, code: int) -> None:
    """The report has its outcome, with its exit code, and how to resume it if it didn't succeed."""
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


def test_code_with_another_graph_can_not_continue_a_run(tmp_path: Path) -> None:
    """The error says what to do instead."""
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
def test_a_daemon_of_a_task_does_not_block_the_run(tmp_path: Path) -> None:
    """A daemon that outlives its run, its driver and its fork server has none of their locks."""
    source = FLOW.replace(
        'print("started", self.input)',
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
        # With the driver stopped, neither can act on the death of the other: the server would end the daemon too.
        process.send_signal(signal.SIGSTOP)
        os.kill(server, signal.SIGKILL)
        process.kill()
    try:
        (tmp_path / "go").touch()
        done = flow_command(file, "attach", "r1")
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.slow
def test_an_interrupted_clone_is_completed(tmp_path: Path) -> None:
    """When a driver dies while it takes over results, the run can still be continued with all of them."""
    file = write_flow(tmp_path, FLOW)
    (tmp_path / "go").touch()
    (tmp_path / "fail").touch()
    assert flow_command(file, "run", "--run-id", "r1", "--max-workers", "1").returncode == 1
    (tmp_path / "fail").unlink()
    assert flow_command(file, "resume", "--run-id", "r2").returncode == 0
    # The state in the middle of the cloning: a part of the commits, and neither a mark nor a driver's files.
    half = tmp_path / ".k8sflow/F/runs/r3"
    half.mkdir()
    record = (tmp_path / ".k8sflow/F/runs/r2/run.json").read_text()
    (half / "run.json").write_text(
        record.replace('"r2"', '"r3"').replace('"r1"', '"r2"').replace('"origin_step":null', '"origin_step":"join"')
    )
    ran(tmp_path)
    done = flow_command(file, "attach", "r3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _marks(tmp_path) == ["end/0:0", "join/0:0"]
    assert run_in(tmp_path, "r3")["work"]["0"].origin_pathspec == "F/r2/work/0"


def test_a_finished_run_is_reported_without_rights_to_write(tmp_path: Path) -> None:
    """Only a driver writes."""
    file = write_flow(tmp_path, FLOW)
    (tmp_path / "go").touch()
    assert flow_command(file, "run", "--run-id", "r1").returncode == 0
    done = subprocess.run(["mount", "--bind", "-o", "ro", str(tmp_path), str(tmp_path)], check=False)
    assert done.returncode == 0, "this test mounts its folder read-only, as root"
    try:
        done = flow_command(file, "attach", "r1", PYTHONDONTWRITEBYTECODE="1")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert done.returncode == 0, done.stderr
    assert "F/r1 succeeded" in done.stdout
