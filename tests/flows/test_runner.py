"""Runs from Python: real processes, their output and their end, with nothing left behind."""

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
            raise ValueError("as requested")
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
    """Run a coroutine with a deadline."""
    return asyncio.run(asyncio.wait_for(work, 60))


async def lines_of(running: ExecutingRun, position: int | None = None) -> list[tuple[int, str]]:
    return [found async for found in running.stream_log("stdout", position)]


def test_the_end_of_a_run_can_be_awaited(flow: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It has parameters, options, configs, variables and a folder; its output can be read."""
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
def test_values_may_be_larger_than_a_process_argument(flow: Path) -> None:
    """The limit is 128 KiB: parameters and configs may be larger, in a new run and in one that resumes it."""
    large = ["x" * 200_000, "ü" * 100_000]
    with Runner(flow, show_output=False, config_value=("limits", {"a": large})).run(table=large) as running:
        assert running.run["start"].task.data.seen[1:3] == (large, large)
    changed = large[::-1]
    with Runner(flow, show_output=False, config_value=("limits", {"a": changed})) as runner:
        resumed = runner.resume(step_to_rerun="start")
        assert resumed.run["start"].task.data.seen[1:3] == (large, changed)


def test_a_run_that_fails_raises_no_error(flow: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is in the status; nothing is shown without a request."""
    running = Runner(flow, show_output=False).run(fails=True)
    assert (running.status, running.returncode) == ("failed", 1)
    assert not running.run.successful
    assert "as requested" in running.stdout
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_that_can_not_be_started_is_reported(flow: Path, is_async: bool) -> None:
    """The error has the output of the command."""

    def start(**options: Any) -> Any:
        runner = Runner(flow, show_output=False)
        return driven(runner.async_run(**options)) if is_async else runner.run(**options)

    with pytest.raises(RunError, match="no run was started") as raised:
        start(m=4)
    assert "run has no option 'm'. " not in raised.value.summary
    assert "run has no option 'm'" in raised.value.cause
    with pytest.raises(RunError, match="exit code 2") as raised:
        start(n="x")
    assert "not of type int" in raised.value.cause
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
    """It uses a past task's inputs, awaited or not; its artifacts are read as any task's, with the file's classes."""
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
            with pytest.raises(RunError, match="no task was started") as raised:
                runner.spin("wrok")
            assert "Did you mean 'work'?" in raised.value.cause
        assert capfd.readouterr() == ("", "")
        other = Runner(flow, config_value=("limits", {"a": 5})).spin("work/1")
        assert other.status == "successful"

    driven(work())


def test_cancelling_the_caller_before_there_is_a_run_cancels_the_run(flow: Path, tmp_path: Path) -> None:
    """Otherwise nobody could end it."""

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


def test_several_runs_at_the_same_time(flow: Path) -> None:
    """Each has its own output, followed from any position while it runs."""

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


def test_a_run_may_be_awaited_with_its_output(flow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is printed as it comes."""

    async def work() -> None:
        running = await Runner(flow).async_run(lines=2)
        assert await running.wait(timeout=60, stream="stdout") is running
        assert capsys.readouterr().out == running.stdout

    driven(work())


def test_a_run_after_its_deadline_is_cancelled(flow: Path, tmp_path: Path) -> None:
    """Its tasks and their processes have ended; the run can be read."""

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


def test_cleanup_ends_running_runs(flow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It also ends a driver that reacts to no signal."""
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


def test_an_environment_that_the_system_refuses_is_reported(flow: Path) -> None:
    with pytest.raises(RunError, match="can't be started: Argument list too long") as raised:
        Runner(flow, env={"LARGE": "x" * 200_000}).run()
    assert "larger than 128 KiB" in raised.value.cause


def test_ctrl_c_cancels_the_awaited_run(flow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The caller gets it too, and sees the run's last lines."""

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
    assert said.index("was cancelled") < said.index("to resume:")
    assert [pid for pid in pids_in(tmp_path / "pids") if not wait_for_death(pid, 10)] == []


def test_a_script_that_ends_ends_its_runs(flow: Path, tmp_path: Path) -> None:
    """Nobody would read their output."""
    script = """
        import asyncio, os, sys
        from k8sflow import Runner
        from tests.waiting import wait_for
        running = asyncio.run(Runner(sys.argv[1]).async_run(sleeps=True))
        wait_for(lambda: os.path.isdir("pids") and len(os.listdir("pids")) == 3)
    """
    done = in_python(script, str(flow))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(pids_in(tmp_path / "pids")) == 3
    assert [pid for pid in pids_in(tmp_path / "pids") if not wait_for_death(pid, 10)] == []


@pytest.mark.slow
def test_many_runs_leave_nothing_behind(flow: Path) -> None:
    """Descriptors and threads are closed, with or without cleanup()."""

    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    Runner(flow, show_output=False).run()
    before = count()
    for _ in range(3):
        Runner(flow, show_output=False).run()
    wait_for(lambda: count() <= before)


def test_a_configs_key_that_would_become_a_string_is_refused(flow: Path) -> None:
    """JSON has only such keys; a file may have others."""
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


def test_a_system_without_pidfds_is_supported(flow: Path) -> None:
    """macOS has none."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PIDFD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(),
    )
    assert done.stdout.split() == ["successful", "failed", "successful"], done.stderr


def test_async_with_ends_running_commands(tmp_path: Path) -> None:
    """As ``with`` does; a start that takes too long is an error."""
    file = write_flow(tmp_path, SLEEPY)

    async def main() -> tuple[str, str]:
        async with Runner(str(file)) as runner:
            running = await runner.async_run()
            await asyncio.to_thread(wait_for, lambda: "asleep" in running.stdout)
        with pytest.raises(RunError, match=r"started no run within 0\.001 s"):
            await Runner(str(file), file_read_timeout=0.001).async_run()
        return running.status, running.run.status

    assert asyncio.run(main()) == ("failed", "cancelled")


SLEEPY = """
    import time
    class F(FlowSpec):
        @step
        def start(self):
            print("asleep", flush=True)
            time.sleep(600)
            self.next(self.end)
        @step
        def end(self):
            pass
"""
