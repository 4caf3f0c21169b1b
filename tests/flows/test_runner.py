"""Runs that Python starts: real processes, their output, their end, and nothing left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from k8sflow import Runner
from k8sflow.errors import ParameterError, RunError
from k8sflow.runner import child
from k8sflow.runner.executing import ExecutingRun
from tests.support import environment, in_python, pids_in, wait_for, wait_for_death, write_flow

FLOW = """
import os, subprocess, sys, time
from k8sflow import Config, JSONType
class F(FlowSpec):
    n = Parameter("n", default=1)
    table = Parameter("table", type=JSONType, default={})
    limits = Config("limits", default_value={"a": 1})
    lines = Parameter("lines", default=0)
    sleeps = Parameter("sleeps", default=False)
    fails = Parameter("fails", default=False)
    stubborn = Parameter("stubborn", default=False)
    @step
    def start(self):
        self.seen = (self.n, self.table, self.limits.a, os.environ.get("GIVEN"), os.getcwd())
        for number in range(self.lines):
            print("line", number)
        print("ünïcødé 🦆", file=sys.stderr)
        if self.sleeps:
            os.makedirs("pids", exist_ok=True)
            for pid in (os.getpid(), os.getppid(), subprocess.Popen(["sleep", "300"]).pid):
                open(f"pids/{pid}", "w").close()
            time.sleep(300)
        if self.fails:
            raise ValueError("it was told to")
        self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.chdir(tmp_path)
    return write_flow(tmp_path, FLOW)


def driven(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine, with an end to waiting."""
    return asyncio.run(asyncio.wait_for(work, 60))


async def lines_of(running: ExecutingRun, position: int | None = None) -> list[tuple[int, str]]:
    return [found async for found in running.stream_log("stdout", position)]


def test_a_run_is_waited_for(flow: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With parameters, options, configs, variables and a folder; its output is ours too."""
    (tmp_path / "other").mkdir()
    runner = Runner("flow.py", env={"GIVEN": "x"}, cwd=tmp_path / "other", tags=["a", "b"])
    with runner.run(n=-3, table={"x": [1]}, max_workers=1, config_value=("limits", {"a": 5})) as running:
        assert (running.status, running.returncode) == ("successful", 0)
        assert running.run["start"].task.data.seen == (-3, {"x": [1]}, 5, "x", str(tmp_path / "other"))
        assert running.run.tags >= {"a", "b"}
    assert "ünïcødé 🦆" in running.stdout
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == (running.stdout, running.stderr)


@pytest.mark.slow
def test_values_may_be_larger_than_an_argument_of_a_process(flow: Path) -> None:
    """Which are 128 KiB at most: parameters and configs, of a new run and of one that resumes it."""
    large = ["x" * 200_000, "ü" * 100_000]
    with Runner(flow, show_output=False, config_value=("limits", {"a": large})).run(table=large) as running:
        assert running.run["start"].task.data.seen[1:3] == (large, large)
    changed = large[::-1]
    with Runner(flow, show_output=False, config_value=("limits", {"a": changed})) as runner:
        resumed = runner.resume(step_to_rerun="start")
        assert resumed.run["start"].task.data.seen[1:3] == (large, changed)


def test_a_run_that_fails_is_no_error(flow: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its status tells; nothing is shown that was not asked for."""
    running = Runner(flow, show_output=False).run(fails=True)
    assert (running.status, running.returncode) == ("failed", 1)
    assert not running.run.successful
    assert "it was told to" in running.stdout
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_async", [False, True])
def test_what_can_not_be_started_is_told(flow: Path, is_async: bool) -> None:
    """With what the command said."""

    def start(**options: Any) -> Any:
        runner = Runner(flow, show_output=False)
        return driven(runner.async_run(**options)) if is_async else runner.run(**options)

    with pytest.raises(RunError, match="no run was started") as told:
        start(m=4)
    assert "run has no option 'm'. " not in told.value.summary
    assert "run has no option 'm'" in told.value.cause
    with pytest.raises(RunError, match="exit code 2") as told:
        start(n="x")
    assert "not of type int" in told.value.cause
    with pytest.raises(ParameterError, match="plain values"):
        start(table={"x": object()})
    with pytest.raises(RunError, match="there is no flow file"):
        Runner("nothing.py")


SPINNER = """
from k8sflow import Config, current, project
class Found:
    def __init__(self, value): self.value = value
@project(name="demo")
class F(FlowSpec):
    factor = Parameter("factor", default=2)
    limits = Config("limits", default_value={"a": 1})
    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.work, foreach="items")
    @step
    def work(self):
        print("works on", self.input)
        assert self.input != 2 or self.limits.a != 1
        self.found = Found((self.input * self.factor, current.project_name, current.branch_name))
        self.next(self.join)
    @step
    def join(self, inputs): self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.mark.slow
def test_a_step_runs_again(flow: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On a past task's inputs, waited for or not; what it left is read as any task, a class of the flow's file too."""
    write_flow(tmp_path, SPINNER)

    async def work() -> None:
        with Runner(flow, show_output=False, max_workers=1) as runner:
            assert runner.run(factor=3, branch="b").status == "failed"
            again = runner.spin("work/0")
            assert (again.status, again.task.successful, again.task.index) == ("successful", True, 0)
            assert again.task.data.found.value == (3, "demo", "test.b")
            assert "works on 1" in again.stdout
            failing = await runner.async_spin("work")
            assert "works on 2" in "".join(line for _, line in await lines_of(failing))
            await failing.wait()
            assert (failing.status, failing.task.successful) == ("failed", False)
            assert failing.task.exception.type == "builtins.AssertionError"
            with pytest.raises(RunError, match="no task was started") as told:
                runner.spin("wrok")
            assert "Did you mean 'work'?" in told.value.cause
        assert capfd.readouterr() == ("", "")
        other = Runner(flow, config_value=("limits", {"a": 5})).spin("work/1")
        assert other.status == "successful"

    driven(work())


def test_who_is_cancelled_before_there_is_a_run_cancels_it(flow: Path, tmp_path: Path) -> None:
    """Nobody has it, to end it."""

    async def work() -> None:
        runner = Runner(flow, show_output=False)
        starting = asyncio.create_task(runner.async_run(sleeps=True))
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        (process,) = runner._children
        assert await asyncio.wrap_future(process.ended) != 0

    driven(work())
    assert pids_in(tmp_path / "pids") == []


def test_several_runs_go_on_side_by_side(flow: Path) -> None:
    """Each with its own output, followed from any position while it runs."""

    async def work() -> None:
        with Runner(flow) as runner:
            first, second = await asyncio.gather(runner.async_run(lines=3), runner.async_run(lines=2000))
            assert first.run.id != second.run.id
            found = await asyncio.gather(lines_of(first), lines_of(second))
            for running, lines in zip((first, second), found, strict=True):
                assert "".join(f"{line}\n" for _, line in lines) == running.stdout
                await running.wait()
                assert running.status == "successful"
            assert sum("] line " in line for _, line in found[1]) == 2000
            position, _ = found[1][1000]
            assert await lines_of(second, position) == found[1][1001:]

    driven(work())


def test_a_run_may_be_waited_for_with_its_output(flow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is printed as it comes."""

    async def work() -> None:
        running = await Runner(flow).async_run(lines=2)
        assert await running.wait(timeout=60, stream="stdout") is running
        assert capsys.readouterr().out == running.stdout

    driven(work())


def test_a_run_out_of_time_is_cancelled(flow: Path, tmp_path: Path) -> None:
    """Its tasks and what they started are gone; the run can be read."""

    async def work() -> None:
        running = await Runner(flow).async_run(sleeps=True)
        assert running.status == "running"
        assert running.returncode is None
        await asyncio.to_thread(wait_for, lambda: len(pids_in(tmp_path / "pids")) == 3)
        await running.wait(timeout=0.01)
        assert (running.status, running.returncode) == ("timeout", 130)
        assert running.run.outcome is not None
        assert running.run.outcome.outcome == "cancelled"

    driven(work())
    assert [pid for pid in pids_in(tmp_path / "pids") if not wait_for_death(pid, 10)] == []


def test_cleanup_ends_what_runs(flow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a driver that hears nothing any more."""
    monkeypatch.setattr(child, "_PATIENCE_SECONDS", 0.5)

    async def work() -> ExecutingRun:
        with Runner(flow) as runner:
            running = await runner.async_run(sleeps=True)
            await asyncio.to_thread(wait_for, lambda: len(pids_in(tmp_path / "pids")) == 3)
            os.kill(running._child.pid, signal.SIGSTOP)
            return running

    running = driven(work())
    assert (running.status, running.returncode) == ("failed", -signal.SIGKILL)
    assert [pid for pid in pids_in(tmp_path / "pids") if not wait_for_death(pid, 10)] == []


def test_an_environment_that_the_system_refuses_is_told(flow: Path) -> None:
    with pytest.raises(RunError, match="can't be started: Argument list too long") as told:
        Runner(flow, env={"LARGE": "x" * 200_000}).run()
    assert "more than 128 KiB" in told.value.cause


def test_ctrl_c_cancels_the_run_that_is_waited_for(
    flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And reaches who waits, who is shown the run's last lines."""

    def interrupt() -> None:
        wait_for(lambda: len(pids_in(tmp_path / "pids")) == 3)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        Runner(flow).run(sleeps=True)
    thread.join()
    said = capsys.readouterr().out
    assert said.count("was cancelled") == 1
    assert said.index("was cancelled") < said.index("to go on:")
    assert [pid for pid in pids_in(tmp_path / "pids") if not wait_for_death(pid, 10)] == []


def test_a_script_that_ends_takes_its_runs_along(flow: Path, tmp_path: Path) -> None:
    """Nobody would read what they write."""
    script = """
        import asyncio, os, sys, time
        from k8sflow import Runner
        running = asyncio.run(Runner(sys.argv[1]).async_run(sleeps=True))
        while not os.path.isdir("pids") or len(os.listdir("pids")) < 3:
            time.sleep(0.01)
    """
    done = in_python(script, str(flow))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(pids_in(tmp_path / "pids")) == 3
    assert [pid for pid in pids_in(tmp_path / "pids") if not wait_for_death(pid, 10)] == []


@pytest.mark.slow
def test_nothing_is_left_of_many_runs(flow: Path) -> None:
    """No descriptor and no thread, whether or not anybody cleans up."""

    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    Runner(flow, show_output=False).run()
    before = count()
    for _ in range(3):
        Runner(flow, show_output=False).run()
    wait_for(lambda: count() <= before)


def test_a_configs_key_that_would_become_a_text_is_refused(flow: Path) -> None:
    """Since it goes by way of JSON; a file keeps it."""
    with pytest.raises(ParameterError, match=r"'limits' has the key 0, which would become a string"):
        Runner(flow, config_value=("limits", {"a": [{0: "cat"}]})).run()


WITHOUT_PIDFD = """
import asyncio, os
del os.pidfd_open
from k8sflow import Runner
with Runner("flow.py", show_output=False) as runner:
    print(runner.run(n=2).status, runner.run(fails=True).status)

async def main():
    running = await Runner("flow.py", show_output=False).async_run(n=3)
    await running.wait()
    print(running.status)

asyncio.run(asyncio.wait_for(main(), 60))
"""


def test_a_system_without_pidfds_is_waited_for_too(flow: Path) -> None:
    """As macOS."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PIDFD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(),
    )
    assert done.stdout.split() == ["successful", "failed", "successful"], done.stderr
