"""Invariant I5 on real processes: a driver is killed at any change of state; after ``attach`` nothing ran twice.

The same with Ctrl-C and ``resume``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import environment, write_flow

HEAD = """
import fcntl, os, threading
from k8sflow import current, retry
alive = []
def mark():
    # Each execution holds a lock until its process has ended: one that finds the lock held isn't alone, and marks that.
    alive.append(open(os.environ["MARKS"] + f".{current.step_name}.{current.task_id}.alive", "w"))
    try:
        fcntl.flock(alive[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        times = 1
    except BlockingIOError:
        times = 2
    with open(os.environ["MARKS"], "a") as file:
        file.write(f"{current.step_name}/{current.task_id}:{current.retry_count}\\n" * times)
def fail_once():
    # Once however many drivers there are: the first execution of the task fails.
    flag = os.environ["MARKS"] + f".{current.step_name}.{current.task_id}"
    if not os.path.exists(flag):
        open(flag, "w").close()
        raise ValueError("the first time")
"""
# A foreach in a foreach, tasks that fail once and are retried, and switches, one of which comes back to itself.
FLOW = (
    HEAD
    + """
class F(FlowSpec):
    @step
    def start(self):
        mark()
        self.outer = ["a", "b"]
        self.next(self.middle, foreach="outer")
    @step
    def middle(self):
        mark()
        self.letter = self.input
        self.inner = [1, 2]
        self.next(self.work, foreach="inner")
    @retry(times=2, minutes_between_retries=0)
    @step
    def work(self):
        mark()
        if self.letter == "b":
            fail_once()
        self.text = self.letter * self.input
        self.next(self.collect)
    @step
    def collect(self, inputs):
        mark()
        self.texts = [i.text for i in inputs]
        self.turns = 0
        self.next(self.again)
    @step
    def again(self):
        mark()
        self.turns += 1
        self.more = self.turns < len(self.texts[0])+ 1
        self.next({True: self.again, False: self.gather}, condition="more")
    @step
    def gather(self, inputs):
        mark()
        self.result = [i.texts for i in inputs]
        self.way = "short"
        self.next({"short": self.short, "long": self.long}, condition="way")
    @step
    def short(self):
        mark()
        self.next(self.end)
    @step
    def long(self):
        mark()
        self.next(self.end)
    @step
    def end(self):
        mark()
"""
)


# Each task is a new interpreter, which is slow: a smaller flow, with threads.
SPAWNED = (
    HEAD
    + """
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
class F(FlowSpec):
    @step
    def start(self):
        mark()
        assert thread.is_alive()
        self.items = ["a", "b"]
        self.next(self.work, foreach="items")
    @retry(times=2, minutes_between_retries=0)
    @step
    def work(self):
        mark()
        if self.input == "b":
            fail_once()
        self.text = self.input
        self.next(self.join)
    @step
    def join(self, inputs):
        mark()
        self.result = [i.text for i in inputs]
        self.next(self.end)
    @step
    def end(self):
        mark()
"""
)


def _run_deaths(folder: Path, source: str, kind: str) -> tuple[int, int]:
    """Return the number of drivers that have died, and of a run's changes of state."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "driver_deaths.py"), str(write_flow(folder, source)), kind],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"(\d+) deaths, (\d+) changes\n", done.stdout)
    assert found is not None, done.stdout
    return int(found[1]), int(found[2])


@pytest.mark.slow
def test_the_driver_of_a_flow_with_threads_may_be_killed(tmp_path: Path) -> None:
    """The same holds if each task is a new interpreter; this tries a few changes of state all over the run."""
    deaths, _ = _run_deaths(tmp_path, SPAWNED, "threads")
    assert deaths >= 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["once", "chain", "cancel"])
def test_the_driver_may_die_at_any_change_of_state(tmp_path: Path, kind: str) -> None:
    """The result is the same; no task that has a result runs again, and no two executions have one name."""
    deaths, changes = _run_deaths(tmp_path, FLOW, kind)
    assert changes > 60
    assert deaths >= (8 if kind == "chain" else changes * 0.9)


@pytest.mark.slow
def test_a_driver_that_takes_cached_results_may_die_at_any_change_of_state(tmp_path: Path) -> None:
    """The result is the same, and no task runs: those that were not taken yet are taken by the next driver."""
    (tmp_path / ".k8sflowignore").write_text("*.marks*\noutput\nchanges\n")
    source = FLOW.replace("    @step\n", '    @cache(version="1")\n    @step\n').replace(
        "import current,", "import cache, current,"
    )
    deaths, changes = _run_deaths(tmp_path, source, "cached")
    assert changes > 30
    assert deaths >= changes * 0.9
