"""The artifacts that @catch keeps of a failed step, and the client's view of its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from k8sflow.client import Run, Task
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.support import flow_command, run_flow, write_flow

HEAD = "from k8sflow import FlowSpec, catch, retry, step, user_step_decorator\nimport os, threading\n"


def run(folder: Path, source: str, *arguments: str) -> tuple[Any, Run]:
    """Run a flow, and return its records."""
    done = run_flow(write_flow(folder, source, head=HEAD), "--run-id", "r", *arguments)
    return done, records(folder, "r")


def records(folder: Path, run_id: str) -> Run:
    """Open a run's records."""
    return Run(RunStore(FolderStore(str(folder / ".k8sflow")), "F", run_id))


def test_metaflow_s_own_example_of_catch(tmp_path: Path) -> None:
    """Metaflow's docs/scaling/failures.md has it: a join reads the artifacts that each branch set before failing."""
    source = """
class F(FlowSpec):
    @step
    def start(self):
        self.divisors = [0, 1, 2]
        self.next(self.divide, foreach="divisors")
    @catch(var="divide_failed")
    @retry(times=1, minutes_between_retries=0)
    @step
    def divide(self):
        self.divisor = self.input
        self.res = 10 / self.input
        self.next(self.join)
    @step
    def join(self, inputs):
        self.results = [input.res for input in inputs if not input.divide_failed]
        self.failed = [(input.divisor, input.divide_failed.type) for input in inputs if input.divide_failed]
        self.next(self.end)
    @step
    def end(self):
        pass
"""
    done, found = run(tmp_path, source)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found.data.results == [10.0, 5.0]
    assert found.data.failed == [(0, "builtins.ZeroDivisionError")]


PARTIAL = """
@user_step_decorator
def watched(step_name, flow, inputs, attributes):
    try:
        yield
    finally:
        flow.watched = True

class Exits:
    def __reduce__(self):
        raise SystemExit("no pickle")

class F(FlowSpec):
    @step
    def start(self):
        self.before, self.items = "old", ["a"]
        self.next(self.left, self.right)
    @step
    def left(self):
        self.next(self.join)
    @step
    def right(self):
        self.next(self.join)
    @catch(var="error")
    @watched
    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.before = "new"
        self.items.append("b")
        self.lock = threading.Lock()
        self.lines = (line for line in "ab")
        self.exits = Exits()
        raise KeyError("x")
        self.next(self.end)
    @step
    def end(self):
        self.seen = (self.before, self.items, hasattr(self, "lock"), hasattr(self, "lines"), self.watched)
        self.error = (self.error.type, self.error.exception, str(self.error))
"""


def test_an_artifact_that_can_t_be_saved_is_omitted_and_reported(tmp_path: Path) -> None:
    """A join's merged and changed artifacts may be omitted too, and those that a decorator set after the failure."""
    done, found = run(tmp_path, PARTIAL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found.data.seen == ("new", ["a", "b"], False, False, True)
    kind, text, shown = found.data.error
    assert (kind, text) == ("builtins.KeyError", "'x'")
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.endswith("KeyError: 'x'")
    output = found["join"].task.stderr
    for name in ("lock", "lines", "exits"):
        assert f"@catch on step join leaves out self.{name}, which can't be saved: " in output


def test_the_client_s_view_of_a_caught_task_is_metaflow_s(tmp_path: Path) -> None:
    """The task is not successful, but finished, and has no exception; the same holds for its clone in a resumed run."""
    _, found = run(tmp_path, PARTIAL.replace("self.seen = (", "assert os.path.exists('go')\n        self.seen = ("))
    caught, failed = found["join"].task, found["end"].task
    assert (caught.successful, caught.finished, caught.exception) == (False, True, None)
    assert caught.metadata_dict["attempt_ok"] == "True"
    assert caught.data.before == "new"
    assert (failed.successful, failed.finished) == (False, False)
    exception = failed.exception
    assert exception is not None
    assert exception.type == "builtins.AssertionError"
    assert "assert os.path.exists('go')" in exception.stacktrace
    (tmp_path / "go").touch()
    done = flow_command(tmp_path / "flow.py", "resume", "--origin-run-id", "r", "--run-id", "again")
    assert done.returncode == 0, done.stdout + done.stderr
    resumed: Task = records(tmp_path, "again")["join"].task
    assert (resumed.successful, resumed.finished) == (False, True)


def test_nothing_is_written_by_an_execution_that_is_retried(tmp_path: Path) -> None:
    """Only the last one's artifacts are needed; without @catch none are."""
    source = """
class F(FlowSpec):
    {decorators}
    @step
    def start(self):
        self.big = bytes(10_000) + os.urandom(10)
        raise ValueError
        self.next(self.end)
    @step
    def end(self): pass
"""
    decorators = "@catch\n    @retry(times=1, minutes_between_retries=0)"
    _, found = run(tmp_path / "a", source.format(decorators=decorators))
    kept = [found.run_store.read_kept("start", "0", attempt) is not None for attempt in (0, 1)]
    assert kept == [False, True]
    assert found["start"].task.data.big[:1] == b"\0"
    done, found = run(tmp_path / "b", source.format(decorators=""))
    assert done.returncode == 1
    assert found.run_store.read_kept("start", "0", 0) is None


def test_a_step_whose_artifact_can_t_be_saved_is_caught(tmp_path: Path) -> None:
    """@catch lets the run continue even if saving failed, with the other artifacts."""
    source = """
class F(FlowSpec):
    @catch(var="error")
    @step
    def start(self):
        self.good, self.bad = 1, threading.Lock()
        self.next(self.end)
    @step
    def end(self):
        self.seen = (self.good, hasattr(self, "bad"), self.error.type, "bad" in str(self.error))
"""
    done, found = run(tmp_path, source)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found.data.seen == (1, False, "k8sflow.errors.ArtifactError", True)
