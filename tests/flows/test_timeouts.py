"""@timeout in runs of real processes: the exception in the step, and the end of a step that ignores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow.client import Run
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.sources import one_step
from tests.support import run_flow, wait_for_death, write_flow

HEAD = """from k8sflow import FlowSpec, catch, current, parallel_map, retry, step, timeout, user_step_decorator
from k8sflow.exception import MetaflowException, TimeoutException
import asyncio, os, queue, signal, subprocess, sys, threading, time
"""
MESSAGE = "the task took longer than its timeout of 2 s, and was ended"


def run(folder: Path, body: str, decorators: str = "@timeout(seconds=2)", module: str = "", end: str = "pass") -> Run:
    """Run a flow whose start has a body, and return its records."""
    source = one_step(body, decorators, end=end, top=module)
    done = run_flow(write_flow(folder, source, head=HEAD), "--run-id", "r")
    print(done.stdout, done.stderr)
    return Run(RunStore(FolderStore(str(folder / ".k8sflow")), "F", "r"))


def outcome(found: Run) -> Any:
    """Return the outcome of the first execution of the start."""
    record = found.run_store.read_outcome("start", "0", 0)
    assert record is not None
    return record


WAITS = {
    "sleep": "time.sleep(1000)",
    "loop": "n = 0\n            while True: n += 1",
    "subprocess": "subprocess.run(['sleep', '1000'])",
    "queue": "queue.Queue().get()",
    "thread": "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(); threading.Event().wait()",
    "asyncio": "asyncio.run(asyncio.sleep(1000))",
    "generator": "list(time.sleep(1) for _ in iter(int, 1))",
    "parallel_map": "parallel_map(lambda i: time.sleep(1000), [1, 2], max_parallel=2)",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_timeout_is_raised_in_any_wait_of_the_step(tmp_path: Path, wait: str) -> None:
    """``except`` and ``finally`` run, all processes of the step end, and the message is the same each time."""
    body = f"""
        print("pid", os.getpid(), flush=True)
        try:
            {wait}
        except TimeoutException as error:
            print("except", isinstance(error, MetaflowException), error.summary)
            raise
        finally:
            print("finally")"""
    found = run(tmp_path, body)
    assert (outcome(found).outcome, outcome(found).summary) == ("timed_out", MESSAGE)
    assert "Traceback" in outcome(found).detail
    _, pid, *rest = found["start"].task.stdout.split(maxsplit=2)
    assert rest == [f"except True {MESSAGE}\nfinally\n"]
    assert wait_for_death(int(pid))
    exception = found["start"].task.exception
    assert exception is not None
    assert (exception.type, exception.exception) == ("k8sflow.errors.TimeoutException", MESSAGE)


@pytest.mark.parametrize("module", ["threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", ""])
def test_artifacts_from_before_the_timeout_are_kept_by_catch(tmp_path: Path, module: str) -> None:
    """This holds if tasks are new interpreters too, since the flow's import starts a thread."""
    body = """
        self.done = []
        try:
            while True:
                self.done.append(len(self.done))
                time.sleep(0.01)
        finally:
            self.closed = True"""
    end = "assert self.closed and len(self.done) > 1, self.done; self.why = (self.err.type, str(self.err)[:9])"
    found = run(tmp_path, body, "@catch(var='err')\n    @timeout(seconds=2)", module, end)
    assert found.successful
    assert found.data.why == ("k8sflow.errors.TimeoutException", "Traceback")
    task = found["start"].task
    assert (task.successful, task.finished, task.exception) == (False, True, None)


def test_a_step_that_catches_the_exception_succeeds(tmp_path: Path) -> None:
    """This is the same in Metaflow; its alarm clock is its own."""
    body = """
        signal.signal(signal.SIGALRM, lambda *_: print("ring", flush=True))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            time.sleep(1000)
        except TimeoutException:
            self.is_partial = True"""
    found = run(tmp_path, body)
    assert found.successful
    assert found["start"].task.data.is_partial
    assert found["start"].task.stdout == "ring\n"


NATIVE = "import ctypes; ctypes.PyDLL(None).pause(); ctypes.PyDLL(None).sleep(1000)"
STUBBORN = {
    "native code": NATIVE,
    "swallows": """while True:
            try: time.sleep(1000)
            except Exception: pass""",
    "never-ending finally": """try: time.sleep(1000)
        finally: time.sleep(1000)""",
    "a thread that is waited for": "threading.Thread(target=time.sleep, args=(1000,)).start(); time.sleep(1000)",
}


@pytest.mark.parametrize("body", STUBBORN.values(), ids=STUBBORN)
def test_a_step_that_ignores_it_is_killed_after_the_grace_period(tmp_path: Path, body: str) -> None:
    """The outcome and the message are the same."""
    body = f"print('pid', os.getpid(), flush=True)\n        {body}"
    found = run(
        tmp_path,
        body,
        "@catch(var='err')\n    @timeout(seconds=2, grace_seconds=0.5)",
        end="self.why = (self.err.type, self.err.exception)",
    )
    assert (outcome(found).outcome, outcome(found).summary) == ("timed_out", MESSAGE)
    assert found.data.why == ("k8sflow.errors.TimeoutException", MESSAGE)
    assert wait_for_death(int(found["start"].task.stdout.split()[1]))


def test_without_a_grace_period_the_task_is_killed_at_once(tmp_path: Path) -> None:
    """No line of the step runs after the timeout."""
    body = """
        try:
            time.sleep(1000)
        finally:
            print("finally")"""
    found = run(tmp_path, body, "@timeout(seconds=2, grace_seconds=0)")
    assert (outcome(found).outcome, outcome(found).summary) == ("timed_out", MESSAGE)
    assert found["start"].task.stdout == ""


def test_an_exception_raised_because_of_the_timeout_is_a_timeout(tmp_path: Path) -> None:
    """A retry for timeouts alone runs it again; its traceback has both."""
    body = """
        try:
            current.retry_count or time.sleep(1000)
        except Exception as error:
            raise RuntimeError("the model did not converge") from error"""
    again = "@retry(times=1, minutes_between_retries=0, on=('timed_out',))"
    found = run(tmp_path, body, f"{again}\n    @timeout(seconds=2)")
    assert found.successful
    assert (outcome(found).outcome, outcome(found).summary) == ("timed_out", MESSAGE)
    assert "the model did not converge" in outcome(found).detail


def test_a_step_that_handled_its_timeout_fails_for_its_own_reason(tmp_path: Path) -> None:
    """A later exception has another reason."""
    body = """
        try:
            time.sleep(1000)
        except TimeoutException:
            pass
        raise ValueError("too few results")"""
    assert outcome(run(tmp_path, body)).outcome == "user_error"


def test_decorators_around_the_step_see_the_timeout(tmp_path: Path) -> None:
    """They see it like any error of the step; and a decorator's own time counts too."""
    module = """
@user_step_decorator
def watched(step_name, flow, inputs, attributes):
    try:
        yield
    except TimeoutException:
        flow.seen = True
"""
    found = run(tmp_path, "time.sleep(1000)", "@watched\n    @timeout(seconds=2)", module)
    assert found["start"].task.data.seen
